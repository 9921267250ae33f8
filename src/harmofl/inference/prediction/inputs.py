"""Images found at the paths given by the user."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harmofl.data.layout.file_names import DICOM_SUFFIXES, folded, is_dicom, is_volume, stem_of, suffix_of
from harmofl.data.layout.name_meanings import mask_key, meaning
from harmofl.data.layout.site_files import files_below
from harmofl.errors import ConfigError, DataError
from harmofl.ingest.dicom.dicom_files import Series, series_in
from harmofl.utils.grouping import grouped

InputKind = Literal["photograph", "volume", "series"]


@dataclass(frozen=True)
class Input:
    """One image to predict: a photograph, a NIfTI volume, or a DICOM series that makes a volume."""

    name: str  # of its output, with `/` between folders and without suffix
    kind: InputKind
    files: tuple[Path, ...]  # its file, or the files of the series
    series: Series | None = None


def find(paths: Sequence[Path], out: Path | None = None) -> list[Input]:
    """Return all images at files and, recursively, in folders, except masks beside them and predictions in `out`.

    Images of the same name get distinct names: x.tif and x.jpg by their suffixes, files of several folders by folder.

    Raises:
        DataError: if a path does not exist, or a folder has no image.
        ConfigError: if there are DICOM files and pydicom is not installed, or `out` is a folder of images.
    """
    check_paths(paths)
    below = out is not None and any(path.resolve() in out.resolve().parents for path in paths)
    if out is not None and below and meaning(out.name).role == "images":
        raise ConfigError(f"{out}: must not be a folder of images, whose files would be left out; choose another --out")
    unique: dict[tuple[Path, ...], Input] = {}
    for path in paths:
        for one in _at(path, out):
            unique.setdefault(_resolved(one), one)
    found = list(unique.values())
    above = os.path.commonpath([one.files[0].absolute().parent for one in found])
    for name in (_with_suffix, lambda one: one.files[0].absolute().relative_to(above).as_posix()):
        count = Counter(one.name for one in found)
        found = [replace(one, name=name(one)) if count[one.name] > 1 else one for one in found]
    return found


def _with_suffix(one: Input) -> str:
    file = one.files[0].name
    suffix = ".dcm" if one.kind == "series" else suffix_of(file) or Path(file).suffix
    return one.name if one.name.endswith(suffix) else one.name + suffix


def keeps_suffix(one: Input) -> bool:
    """Return True if the image's name keeps its suffix, to differ from another image's name."""
    return bool(suffix_of(one.name)) and one.name.endswith(one.files[0].name)


def check_paths(paths: Sequence[Path]) -> None:
    """Raise DataError for the first path that is neither a file nor a folder."""
    for path in paths:
        if not path.is_dir() and not path.is_file():
            raise DataError(f"{path}: does not exist; give a file or a folder")


def passed_over(paths: Sequence[Path], inputs: Sequence[Input], out: Path | None = None) -> list[str]:
    """Return a line on masks in the folders that are not predicted, and one on files that are no images."""
    taken = {file for one in inputs for file in _resolved(one)}
    masks, others = [], []
    for path in filter(Path.is_dir, paths):
        files = _within(path, out)
        left, beside = [file for file in files if file.resolve() not in taken], _masks(path, files)
        masks += [file for file in left if file in beside]
        others += [file for file in left if file not in beside]
    said = []
    if masks:
        said.append(
            f"not predicted: {len(masks)} masks beside images, such as {masks[0]}; "
            "give their files or folder to predict them too"
        )
    if others:
        kinds = ", ".join(sorted({path.suffix.lower() or path.name for path in others}))
        said.append(f"not predicted: {len(others)} files that are no images, {kinds}")
    return said


def _masks(root: Path, files: Sequence[Path]) -> set[Path]:
    """Return the images in a folder named as masks, beside images or a folder of them, and x_mask.png beside x.png."""
    images = [file for file in files if suffix_of(file.name) or is_dicom(file)]
    by_folder = grouped(images, lambda file: file.parent)
    below = {one: meaning(one.name) for part in by_folder for one in (part, *part.parents) if root in one.parents}
    beside = {one.parent for one, meant in below.items() if meant.role == "images" or (meant.split and not meant.role)}
    apart = {one for one, meant in below.items() if meant.role == "masks" and one.parent in beside | by_folder.keys()}
    found = {file for file in images if not apart.isdisjoint(file.parents)}
    for members in by_folder.values():
        stems = {folded(stem_of(file.name)): file for file in members}
        found |= {file for stem, file in stems.items() if mask_key(stem) != stem and mask_key(stem) in stems}
    return found


def _resolved(one: Input) -> tuple[Path, ...]:
    return tuple(file.resolve() for file in one.files)


def _within(folder: Path, out: Path | None) -> list[Path]:
    """Return all files of a folder, except those of earlier predictions in a subfolder `out`."""
    apart = out.resolve() if out and folder.resolve() in out.resolve().parents else None
    return [file for file in files_below(folder) if apart is None or apart not in file.resolve().parents]


def _at(path: Path, out: Path | None) -> list[Input]:
    if path.is_dir():
        files = _within(path, out)
        masks = _masks(path, files)
        files = [file for file in files if file not in masks]
        flat = [file for file in files if suffix_of(file.name)]
        found = [_flat(file, file.relative_to(path).as_posix()) for file in flat] + _series(
            [file for file in files if is_dicom(file)], path
        )
        if not found:
            raise DataError(f"{path}: must contain PNG, JPEG, TIFF, NIfTI or DICOM images, but has none")
        return found
    if suffix_of(path.name):
        return [_flat(path, path.name)]
    if is_dicom(path):
        return _series([path], path.parent)
    raise DataError(f"{path}: must be PNG, JPEG, TIFF, NIfTI or DICOM; convert it or leave it out")


def _flat(file: Path, relative: str) -> Input:
    kind: InputKind = "volume" if is_volume(file.name) else "photograph"
    return Input(relative.removesuffix(suffix_of(relative)), kind, (file,))


def _series(files: Sequence[Path], root: Path) -> list[Input]:
    """Return the DICOM inputs: files without a position in space are photographs; segmentations are left out."""
    found: list[Input] = []
    for folder, members in grouped(files, lambda file: file.parent).items():
        place = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        flat = [file for file in members if not _has_header(file)]  # reported when they are read
        volumes: list[Input] = []
        all_series = [one for one in series_in([f for f in members if f not in flat]) if one.modality != "SEG"]
        for number, one in enumerate(all_series, start=1):
            own = root.absolute().name if len(one.files) > 1 else _stem(one.files[0])
            stem = place.rstrip("/") or own
            if one.has_place:
                name = stem if len(all_series) == 1 else f"{stem}_{number}"
                volumes.append(Input(name, "series", one.files, one))
            else:
                flat += one.files
        found += [*(Input(f"{place}{_stem(file)}", "photograph", (file,)) for file in flat), *volumes]
    return found


def _has_header(file: Path) -> bool:
    try:
        series_in([file])
    except DataError:
        return False
    return True


def _stem(file: Path) -> str:
    """Return the name without a DICOM suffix; IM.1 and IM.2 stay distinct."""
    return file.stem if file.suffix.lower() in DICOM_SUFFIXES else file.name
