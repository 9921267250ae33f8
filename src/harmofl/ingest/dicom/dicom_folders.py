"""Conversion of a folder of sites with DICOM files into a plain folder of NIfTI and PNG.

Inside a site's images/, masks/ or labels/, or inside its class folders, a folder of DICOM files is a case: its series
become volumes named after the folder. A DICOM file directly in one of them is a separate image. Of the headers, only a
hash of the patient's identifier is kept.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from harmofl.data.csv_tables import read_table
from harmofl.data.layout.file_names import is_dicom, owner_of, suffix_of
from harmofl.data.layout.listing import MASK_FOLDERS
from harmofl.data.layout.metadata import FILE, PATIENT_COLUMNS, metadata_path
from harmofl.data.layout.site_files import files_below
from harmofl.errors import DataError
from harmofl.ingest.dicom.dicom_cases import DicomCase, Made, convert_series
from harmofl.ingest.image_writing import link
from harmofl.types import Progress

_PLACES = ("images", *MASK_FOLDERS)
_INDEX = "DICOMDIR"
"""The name of the index file of a DICOM medium, which holds no image."""


def dicom_files(source: Path) -> list[Path]:
    """Return all DICOM files below a folder, sorted; for a file, the file itself if it is DICOM."""
    if source.is_file():
        return [source] if is_dicom(source) else []
    return [path for path in files_below(source) if is_dicom(path)]


def without_dicom(source: Path, target: Path, found: Sequence[Path], progress: Progress | None = None) -> list[str]:
    """Write a copy of a plain folder to `target`, with the `found` DICOM files converted and other files linked.

    Returns:
        a message if other files are in folders of DICOM files, which are not converted.

    Raises:
        DataError: for the first case that cannot be read, or two files that get the same name.
        ConfigError: if pydicom is not installed.
    """
    made = convert_series(_cases(source, found), target, progress)
    converted, table = set(found), metadata_path(source)
    for path in files_below(source):
        if path not in converted and path != table:
            name = path.relative_to(source)
            if (target / name).exists():
                raise DataError(
                    f"{name.as_posix()}: a DICOM file beside it is converted to a file of the same name; rename one"
                )
            link(path, target / name)
    if table.is_file():
        _rename(table, target / FILE, made)
    else:
        _tell_patients(target, made)
    folders = {path.parent for path in found}
    other = [path for path in files_below(source) if path.parent in folders and path not in converted]
    other = [path for path in other if not suffix_of(path.name)]  # no image that is linked as it is
    if not other:
        return []
    first = other[0].relative_to(source).as_posix()
    return [f"{first}: {len(other)} files among DICOM files are not recognised as DICOM and are left out"]


def _cases(source: Path, found: Sequence[Path]) -> list[DicomCase]:
    grouped: dict[tuple[PurePosixPath, str, bool], list[Path]] = defaultdict(list)
    for path in found:
        if path.name.upper() == _INDEX:
            continue
        parts = PurePosixPath(path.relative_to(source).as_posix()).parts
        depth = next((k + 1 for k, part in enumerate(parts[:-1]) if part in _PLACES), min(2, len(parts) - 1))
        if not depth:
            raise DataError(
                f"{path.name}: a DICOM file must belong to a site; move it into a site's folder, or leave it out"
            )
        alone = len(parts) == depth + 1
        grouped[PurePosixPath(*parts[:depth]), parts[depth], alone].append(path)
    stems = {(place, _stem(name, alone)): files for (place, name, alone), files in grouped.items()}
    cases = []
    for (place, name, alone), files in sorted(grouped.items()):
        stem = _stem(name, alone)
        if (other := stems[place, stem]) is not files:
            first = other[0].relative_to(source).as_posix()
            raise DataError(f"{place / name}: {first} is converted to a file of the same name; rename one")
        mask = place.name in MASK_FOLDERS
        drawn_on = stems.get((place.parent / "images", stem), ()) if mask else ()
        single = place.name == "images"
        cases.append(
            DicomCase(str(place / stem), str(place / name), tuple(files), alone, mask, single, tuple(drawn_on))
        )
    return cases


def _stem(name: str, alone: bool) -> str:
    return PurePosixPath(name).stem if alone else name


def _tell_patients(target: Path, made: Sequence[Made]) -> None:
    """Write a metadata.csv with the patients of converted images, if any file gives one."""
    patients = {path: one.patient for one in made for path in one.paths if one.patient}
    if not patients:
        return
    images = [path for path in files_below(target) if suffix_of(path.name) and _is_listed(target, path)]
    with (target / FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("site", "file", "patient"))
        for path in images:
            name = path.relative_to(target).as_posix()
            site, _, within = name.partition("/")
            if site in _PLACES:  # the folder is a single site
                site, within = target.name, name
            writer.writerow((site, within, patients.get(name) or owner_of(within)))


def _is_listed(root: Path, path: Path) -> bool:
    """Return True if the path is an image of a plain folder: in images/, or in a class folder of a site without it."""
    parts = path.relative_to(root).parts
    return path.parent.name == "images" or (len(parts) == 3 and not (root / parts[0] / "images").is_dir())


def _rename(source: Path, target: Path, made: Sequence[Made]) -> None:
    """Copy a metadata.csv with the paths of converted files, or of their folders, replaced.

    A column of patients is added if the table has none and the files give patients.
    """
    new, parts = _by_name(source.parent, made)
    table = read_table(source)
    table.require(["file"])
    untold = not set(PATIENT_COLUMNS) & set(table.columns) and any(one.patient for one in made)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, (*table.columns, *([PATIENT_COLUMNS[0]] if untold else [])))
        writer.writeheader()
        for line, row in table.rows:
            if whole := next((parts[name] for name, _ in _names(row) if name in parts), None):
                becomes = Path(whole.paths[0]).name if len(whole.paths) == 1 else f"{len(whole.paths)} images"
                raise DataError(
                    f"{source}:{line}: a row must name one image, got {row['file']}, but all of "
                    f"{whole.case.old} becomes {becomes}; keep each series in a separate folder, and name that "
                    "folder in a single row"
                )
            name, patient = _renamed(row, new)
            writer.writerow({**row, "file": name, **({PATIENT_COLUMNS[0]: patient} if untold else {})})


def _by_name(root: Path, made: Sequence[Made]) -> tuple[dict[str, tuple[str, str]], dict[str, Made]]:
    """Map paths relative to the root to images with their patients, and other paths to the cases they are part of."""
    new, parts = dict[str, tuple[str, str]](), dict[str, Made]()
    for one in made:
        if len(one.paths) == 1:
            new[one.case.old] = one.paths[0], one.patient
        else:
            parts[one.case.old] = one
        for file in one.case.files:
            name = file.relative_to(root).as_posix()
            if file in one.photographs:
                new[name] = one.photographs[file], one.patient
            elif name not in new:
                parts[name] = one
    return new, parts


def _renamed(row: Mapping[str, str], new: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """Return the new path of the row's file, and its patient."""
    for old, left_out in _names(row):
        if old in new:
            path, patient = new[old]
            name = path.removeprefix(left_out)
            return name, patient or owner_of(name)
    return row["file"], owner_of(row["file"])


def _names(row: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the possible paths of the row's file relative to the root, each with the prefix that the row omits."""
    file = row["file"].rstrip("/")
    sites = (f"{row['site']}/", "") if row.get("site") else ("",)
    left_out = [site + between for site in sites for between in ("", "images/")]
    return [(before + file, before) for before in left_out]
