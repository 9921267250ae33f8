"""A table whose images or masks are DICOM files, or folders of them, made into one of NIfTI and PNG."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from harmofl.data.decoding.assembly import Progress
from harmofl.data.dicom.cases import Case, Made, convert
from harmofl.data.dicom.folders import dicom_files
from harmofl.data.layout.files import stem_of
from harmofl.data.layout.table import Columns, TableRow, inside, read_rows
from harmofl.data.placing import link
from harmofl.errors import DataError


def table_without_dicom(source: Path, columns: Columns, target: Path, progress: Progress | None = None) -> Path | None:
    """Write at `target` a table and its files with DICOM converted, or return None if its rows name none.

    Returns:
        The new table; its columns have their usual names.

    Raises:
        DataError: for the first row that cannot be read.
        ConfigError: if pydicom is not installed.
    """
    rows = read_rows(source, columns)
    cases: dict[str, Case] = {}
    for row in rows:
        for file, mask in ((row.image, False), (row.target, True)):
            name = inside(source, row.line, file) if not mask or _may_be_file(source, file) else ""
            if name and (files := dicom_files(source.parent / name)):
                drawn_on = tuple(dicom_files(source.parent / inside(source, row.line, row.image))) if mask else ()
                alone = (source.parent / name).is_file()
                path = str(PurePosixPath(name).with_suffix("")) if alone else name
                cases[name] = Case(path, name, tuple(files), alone, mask, True, drawn_on)
    if not cases:
        return None
    made = {one.case.old: one for one in convert(list(cases.values()), target, progress)}
    _write_rows(source, rows, made, target / source.name)
    return target / source.name


def _may_be_file(source: Path, text: str) -> bool:
    return (source.parent / text).exists()


def _write_rows(source: Path, rows: Sequence[TableRow], made: Mapping[str, Made], target: Path) -> None:
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


def _only(made: Made, place: str) -> str:
    if len(made.paths) != 1:
        raise DataError(f"{place}: {made.case.old} must be one series, got {len(made.paths)}; give a row to each")
    return made.paths[0]
