"""Images as hospitals export them, with DICOM files, made into a plain folder of NIfTI and PNG.

Below a site's images/, masks/ or labels/, or below its class folders, a folder of DICOM files is a case: its series
become volumes named as the folder. A DICOM file directly there is an image of its own. In a table, a row's image and
mask are such a file or folder. Nothing of a header but the patient's identifier, hashed, goes into what is made.
"""

import csv
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from harmofl.data import dicom
from harmofl.data.decoding.assembly import Progress
from harmofl.data.layout.files import stem_of, suffix_of, written
from harmofl.data.layout.listing import MASK_FOLDERS
from harmofl.data.layout.table import Columns, TableRow, inside, read_rows
from harmofl.data.parallel import in_order
from harmofl.data.placing import link, save_png, save_volume
from harmofl.data.tables import read_table
from harmofl.errors import DataError

_PLACES = ("images", *MASK_FOLDERS)


@dataclass(frozen=True)
class _Case:
    """DICOM files that become an image, or the images of several series.

    Args:
        path: of what is made, relative to the root and without suffix.
        old: how a table calls it: the file, or the folder of the files, relative to the root.
        files: the files.
        alone: whether it is one file and not a folder.
        mask: whether its pixels are labels.
        drawn_on: of a mask, the files of its image.
    """

    path: str
    old: str
    files: tuple[Path, ...]
    alone: bool
    mask: bool
    drawn_on: tuple[Path, ...] = ()


@dataclass
class _Made:
    """What a case became: new paths relative to the root, and whose they are."""

    case: _Case
    paths: list[str] = field(default_factory=list)
    patient: str = ""


def dicom_files(source: Path) -> list[Path]:
    """All DICOM files below a folder, sorted; of a file, itself if it is one."""
    if source.is_file():
        return [source] if dicom.is_dicom(source) else []
    return [path for path in _walk(source) if dicom.is_dicom(path)]


def _walk(source: Path) -> Iterator[Path]:
    for folder, inner, names in os.walk(source, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from (written(Path(folder, name)) for name in sorted(names) if not name.startswith("."))


def without_dicom(source: Path, target: Path, found: Sequence[Path], progress: Progress | None = None) -> None:
    """Write at `target` the folder `source` with its DICOM files converted and its other files linked.

    Args:
        source: a plain folder of sites.
        target: the folder to make.
        found: the DICOM files in it.
        progress: told what is done, how many cases are done and how many there are.

    Raises:
        DataError: for the first case that cannot be read.
        ConfigError: if pydicom is not installed.
    """
    made = _convert(_cases(source, found), target, progress)
    converted = set(found)
    for path in _walk(source):
        if path not in converted and path != source / "metadata.csv":
            link(path, target / path.relative_to(source))
    if (source / "metadata.csv").is_file():
        _rename(source / "metadata.csv", target / "metadata.csv", made)
    else:
        _tell_patients(target, made)


def table_without_dicom(source: Path, columns: Columns, target: Path, progress: Progress | None = None) -> Path | None:
    """Write at `target` a table and its files with DICOM converted, or return None if its rows name none.

    Returns:
        The new table; its columns have their usual names.

    Raises:
        DataError: for the first row that cannot be read.
        ConfigError: if pydicom is not installed.
    """
    rows = read_rows(source, columns)
    cases: dict[str, _Case] = {}
    for row in rows:
        for file, mask in ((row.image, False), (row.target, True)):
            name = inside(source, row.line, file) if not mask or _may_be_file(source, file) else ""
            if name and (files := dicom_files(source.parent / name)):
                drawn_on = tuple(dicom_files(source.parent / inside(source, row.line, row.image))) if mask else ()
                alone = (source.parent / name).is_file()
                path = str(PurePosixPath(name).with_suffix("")) if alone else name
                cases[name] = _Case(path, name, tuple(files), alone, mask, drawn_on)
    if not cases:
        return None
    made = {one.case.old: one for one in _convert(list(cases.values()), target, progress)}
    _write_rows(source, rows, made, target / source.name)
    return target / source.name


def _may_be_file(source: Path, text: str) -> bool:
    return (source.parent / text).exists()


def _write_rows(source: Path, rows: Sequence[TableRow], made: Mapping[str, _Made], target: Path) -> None:
    """Write the table with the new paths, and link the files that stay as they are."""
    told_too = [what for what in ("site", "split") if any(getattr(row, what) for row in rows)]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "target", "patient", *told_too))
        for row in rows:
            names = []
            for text, mask in ((row.image, False), (row.target, True)):
                name = inside(source, row.line, text) if not mask or _may_be_file(source, text) else text
                if name in made:
                    names.append(_only(made[name], f"{source}:{row.line}"))
                else:
                    names.append(name)
                    if (source.parent / name).is_file():
                        link(source.parent / name, target.parent / name)
            told = made[old].patient if (old := inside(source, row.line, row.image)) in made else ""
            patient = row.patient or told or stem_of(names[0])
            writer.writerow((*names, patient, *(getattr(row, what) for what in told_too)))


def _only(made: _Made, place: str) -> str:
    if len(made.paths) != 1:
        raise DataError(f"{place}: {made.case.old} must be one series, got {len(made.paths)}; give a row to each")
    return made.paths[0]


def _convert(cases: Sequence[_Case], target: Path, progress: Progress | None) -> list[_Made]:
    def convert(case: _Case) -> _Made:
        try:
            return _converted(case, target)
        except DataError as error:
            raise DataError(f"{case.old}: {error}") from None

    made = []
    for one in in_order(convert, cases):
        made.append(one)
        if progress:
            progress(one.case.old, len(made), len(cases))
    return made


def _cases(source: Path, found: Sequence[Path]) -> list[_Case]:
    grouped: dict[tuple[PurePosixPath, str, bool], list[Path]] = defaultdict(list)
    for path in found:
        parts = PurePosixPath(path.relative_to(source).as_posix()).parts
        depth = next((k + 1 for k, part in enumerate(parts[:-1]) if part in _PLACES), min(2, len(parts) - 1))
        alone = len(parts) == depth + 1
        grouped[PurePosixPath(*parts[:depth]), parts[depth], alone].append(path)
    stems = {(place, _stem(name, alone)): files for (place, name, alone), files in grouped.items()}
    cases = []
    for (place, name, alone), files in sorted(grouped.items()):
        stem = _stem(name, alone)
        mask = place.name in MASK_FOLDERS
        drawn_on = stems.get((place.parent / "images", stem), ()) if mask else ()
        cases.append(_Case(str(place / stem), str(place / name), tuple(files), alone, mask, tuple(drawn_on)))
    return cases


def _stem(name: str, alone: bool) -> str:
    return PurePosixPath(name).stem if alone else name


def _converted(case: _Case, target: Path) -> _Made:
    series = dicom.series_in(case.files)
    made = _Made(case)
    if case.mask and len(series) > 1:
        raise DataError(f"a mask must be one series, got {len(series)}; keep one")
    for number, one in enumerate(series, start=1):
        made.patient = made.patient or pseudonym(one.patient)
        path = case.path if len(series) == 1 else f"{case.path}_{number}"
        if one.modality == "SEG":
            made.paths.append(_segmentation(one, case, path, target))
        elif dicom.has_place(one) and (not case.alone or dicom.frames(one.files[0]) > 1):
            volume = dicom.read_volume(one)
            made.paths.append(f"{path}.nii.gz")
            save_volume(_compact(volume.voxels), volume.affine, target / made.paths[-1])
        else:
            names = [path] if len(one.files) == 1 else [f"{path}_{file.stem}" for file in one.files]
            made.paths += [_flat(*pair, case.mask, target) for pair in zip(one.files, names, strict=True)]
    return made


def _compact(voxels: np.ndarray) -> np.ndarray:
    """16-bit whole numbers where they are that, else float32."""
    whole = np.rint(voxels)
    exact = (whole == voxels).all() and np.abs(whole).max() < 2**15
    return np.asarray(whole, dtype=np.int16) if exact else voxels.astype(np.float32)


def _flat(file: Path, path: str, mask: bool, target: Path) -> str:
    pixels = dicom.read_label_map(file) if mask else dicom.read_photograph(file)
    if mask and not 0 <= pixels.min() <= pixels.max() <= 255:
        raise DataError(f"{file.name}: labels must be 0..255, got {pixels.min()}..{pixels.max()}; convert it")
    save_png(pixels.astype(np.uint8), target / f"{path}.png")
    return f"{path}.png"


def _segmentation(series: dicom.Series, case: _Case, path: str, target: Path) -> str:
    drawn_on = [one for one in dicom.series_in(case.drawn_on) if one.modality != "SEG"]
    if len(drawn_on) != 1:
        raise DataError(f"a DICOM segmentation needs the image series it was drawn on, got {len(drawn_on)}; keep one")
    volume = dicom.read_volume(drawn_on[0])
    save_volume(dicom.read_segmentation(series, volume), volume.affine, target / f"{path}.nii.gz")
    return f"{path}.nii.gz"


def pseudonym(patient: str) -> str:
    """A name that tells patients apart and not who they are; "" stays "".

    Identifiers are short, so whoever has a list of them can find out: manifests are to stay at the hospital.
    """
    return f"p-{hashlib.sha256(patient.encode()).hexdigest()[:12]}" if patient else ""


def _tell_patients(target: Path, made: Sequence[_Made]) -> None:
    """Write a metadata.csv with the patients of converted images, if any file told one."""
    patients = {path: one.patient for one in made for path in one.paths if one.patient}
    if not patients:
        return
    images = [path for path in _walk(target) if suffix_of(path.name) and _is_listed(target, path)]
    with (target / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("site", "file", "patient"))
        for path in images:
            name = path.relative_to(target).as_posix()
            site, _, within = name.partition("/")
            if site in _PLACES:  # the folder is a single site
                site, within = target.name, name
            writer.writerow((site, within, patients.get(name) or stem_of(name)))


def _is_listed(root: Path, path: Path) -> bool:
    """Tell whether a plain folder has an image there: in images/, or in a class folder of a site without."""
    parts = path.relative_to(root).parts
    return path.parent.name == "images" or (len(parts) == 3 and not (root / parts[0] / "images").is_dir())


def _rename(source: Path, target: Path, made: Sequence[_Made]) -> None:
    """Copy a metadata.csv with the paths of converted files, or of their folders, replaced."""
    new = {one.case.old: one.paths[0] for one in made if len(one.paths) == 1}
    table = read_table(source)
    table.require(["file"])
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table.columns)
        writer.writeheader()
        writer.writerows({**row, "file": _renamed(row, new)} for _, row in table.rows)


def _renamed(row: Mapping[str, str], new: Mapping[str, str]) -> str:
    file = row["file"].rstrip("/")
    for before in (f"{row['site']}/" if row.get("site") else "", ""):
        for between in ("", "images/"):
            if (found := new.get(before + between + file)) is not None:
                return found.removeprefix(before).removeprefix(between)
    return row["file"]
