"""Conversion of a table whose images or masks are DICOM files, or folders of them, into one of NIfTI and PNG."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from harmofl.data.layout.file_names import owner_of
from harmofl.data.layout.image_table import Columns, inside, read_rows
from harmofl.data.layout.metadata import TableRow
from harmofl.errors import DataError
from harmofl.ingest.dicom.dicom_cases import DicomCase, Made, convert_series
from harmofl.ingest.dicom.dicom_folders import dicom_files
from harmofl.ingest.image_writing import link
from harmofl.types import Progress


def table_without_dicom(
    source: Path, columns: Columns, target: Path, progress: Progress | None = None
) -> tuple[Path, bool] | None:
    """Write a table and its files to `target` with DICOM converted; return None if its rows name no DICOM.

    Returns:
        the new table, whose columns have the default names, and whether the headers give all patients.

    Raises:
        DataError: for the first row that cannot be read.
        ConfigError: if pydicom is not installed.
    """
    rows = read_rows(source, columns)
    images = [inside(source, row.line, row.image) for row in rows]
    masks = _masks(source, rows)
    cases: dict[str, DicomCase] = {}
    for image, mask in zip(images, masks, strict=True):
        scans = dicom_files(source.parent / image)
        if scans:
            cases[image] = _case(source, "images", image, scans)
        if mask and (drawn := dicom_files(source.parent / mask)):
            cases[mask] = replace(_case(source, "masks", mask, drawn), mask=True, drawn_on=tuple(scans))
    if not cases:
        return None
    _refuse_one_name(source, cases.values())
    made = {one.case.old: one for one in convert_series(list(cases.values()), target, progress)}
    _write_rows(source, list(zip(rows, images, masks, strict=True)), made, target / source.name)
    return target / source.name, all(image in made and made[image].patient for image in images)


def _refuse_one_name(source: Path, cases: Iterable[DicomCase]) -> None:
    by_path: dict[str, str] = {}
    for case in cases:
        if (other := by_path.setdefault(case.path, case.old)) != case.old:
            raise DataError(f"{source}: {other} and {case.old} are converted to files of the same name; rename one")


def _masks(source: Path, rows: Sequence[TableRow]) -> list[str]:
    """Return each row's mask relative to the table, or "" for all rows if the targets are classes.

    A class may have the name of a folder next to the table, so a folder is a mask only if a single row names it.
    """
    targets = [source.parent / row.target for row in rows]
    folders = [path for path in targets if path.is_dir()]
    if not all(path.exists() for path in targets) or len(set(folders)) < len(folders):
        return [""] * len(rows)
    return [inside(source, row.line, row.target) for row in rows]


def _case(source: Path, place: str, name: str, files: Sequence[Path]) -> DicomCase:
    alone = (source.parent / name).is_file()
    path = f"{place}/{PurePosixPath(name).with_suffix('') if alone else name}"
    return DicomCase(path, name, tuple(files), alone, mask=False, single=True)


def _write_rows(
    source: Path, rows: Sequence[tuple[TableRow, str, str]], made: Mapping[str, Made], target: Path
) -> None:
    """Write the table with the new paths, and link the files that are not converted."""
    told_too = [what for what in ("site", "split") if any(getattr(row, what) for row, _, _ in rows)]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "target", "patient", *told_too))
        for row, image, mask in rows:
            place = f"{source}:{row.line}"
            new_image = _placed(source, "images", image, made, target, place)
            new_target = _placed(source, "masks", mask, made, target, place) if mask else row.target
            told = made[image].patient if image in made else ""
            patient = row.patient or told or owner_of(new_image)
            writer.writerow((new_image, new_target, patient, *(getattr(row, what) for what in told_too)))


def _placed(source: Path, kind: str, name: str, made: Mapping[str, Made], target: Path, place: str) -> str:
    """Return the path of an old table's file in the new table, and link the file if it was not converted."""
    if name in made:
        if len(paths := made[name].paths) != 1:
            raise DataError(f"{place}: {name} must be one series, got {len(paths)}; give a row to each")
        return paths[0]
    file, new = source.parent / name, f"{kind}/{name}"
    if not file.is_file():
        return name  # reported as missing later
    if (target.parent / new).exists() and not (target.parent / new).samefile(file):
        raise DataError(f"{place}: a DICOM file beside {name} is converted to a file of the same name; rename one")
    link(file, target.parent / new)
    return new
