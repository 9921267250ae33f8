"""Reading of a CSV table of images: one row per image, with its file, target, patient, site and split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from harmofl.data.csv_tables import Table, column_name, read_table
from harmofl.data.layout.class_inference import infer_info
from harmofl.data.layout.file_names import composed, is_hidden, is_volume, normal, owner_of, suffix_of
from harmofl.data.layout.metadata import PATIENT_COLUMNS, SITE_COLUMNS, TableRow, row_of, rows_of
from harmofl.data.layout.plain_folders import check_classes
from harmofl.data.layout.site_files import AT_RANDOM, FederationFiles, Listing, SiteFiles
from harmofl.data.manifest import Record
from harmofl.data.splits import with_splits
from harmofl.errors import DataError
from harmofl.types import Task
from harmofl.utils.grouping import grouped

_NAMES = {
    "image": ("image", "file", "path", "filename", "filepath", "image_path", "image_file"),
    "target": ("mask", "label", "target", "class", "segmentation", "mask_path", "diagnosis"),
    "site": SITE_COLUMNS,
    "patient": PATIENT_COLUMNS,
    "split": ("split",),
}
"""Default names of each column."""


_LONGEST = 200
"""The maximum length of a site's name in bytes, so that files next to its folder may have longer names."""


@dataclass(frozen=True)
class Columns:
    """The names of the columns; None stands for the default names."""

    image: str | None = None
    target: str | None = None
    site: str | None = None
    patient: str | None = None
    split: str | None = None


def read_rows(path: Path, columns: Columns) -> list[TableRow]:
    """Read the table.

    Raises:
        DataError: if a column is missing or a value is not allowed, naming the line.
    """
    table = read_table(path)
    names = {what: _column(table, what, getattr(columns, what)) for what in _NAMES}
    if not table.rows:
        raise DataError(f"{path}: must have a row for each image, but has none; add them")
    table.require_values(filter(None, names.values()))
    return rows_of(table, names, _row)


def _column(table: Table, what: str, wanted: str | None) -> str:
    if wanted is not None:
        table.require([name := column_name(wanted)])
        return name
    known = [name for name in _NAMES[what] if name in table.columns]
    if len(known) > 1:
        raise DataError(
            f"{table.path}: one column must give the {what}, but {' and '.join(known)} could; "
            f"choose one with --{what}-column"
        )
    name = known[0] if known else ""
    if not name and what in ("image", "target"):
        got = ", ".join(filter(None, table.columns))
        raise DataError(
            f"{table.path}: a column must give the {what}, named one of {', '.join(_NAMES[what])}; the columns are "
            f"{got}; name it with --{what}-column"
        )
    return name


def _row(path: Path, line: int, values: Mapping[str, str], names: Mapping[str, str]) -> TableRow:
    row = row_of(path, line, values, names)
    if not _can_be_folder(row.site):
        raise DataError(f"{path}:{line}: a site must have a valid folder name, got {row.site!r}; rename it")
    return row


def _can_be_folder(site: str) -> bool:
    plain = site.isprintable() and len(site.encode()) <= _LONGEST and site != "federation.toml"
    return plain and not ("/" in site or "\\" in site or is_hidden(site))


def inside(path: Path, line: int, file: str) -> str:
    """Return a file's path relative to the table's folder.

    Raises:
        DataError: if an absolute path is outside of that folder, or the path has backslashes, naming the line.
    """
    if "\\" in file and not (path.parent / file).exists():
        raise DataError(f"{path}:{line}: folders in a path must be separated by /, got {file}; replace the backslashes")
    root = path.parent.resolve()
    pure = PurePosixPath(file)
    if pure.is_absolute():
        if not pure.is_relative_to(root):
            raise DataError(f"{path}:{line}: {file} must be below the table's folder; move the table above its files")
        file = pure.relative_to(root).as_posix()
    if ".." in pure.parts and (path.parent / file).resolve().is_relative_to(root):
        file = (path.parent / file).resolve().relative_to(root).as_posix()
    return normal(file)


def read_table_layout(
    path: Path, columns: Columns, *, seed: int, fractions: tuple[float, float, float]
) -> FederationFiles:
    """List the sites and images of a table; a table without a column of sites is one site, named after the file.

    Raises:
        DataError: as in `read_rows`, or if targets are of both kinds, or the number of classes is not allowed.
    """
    rows = read_rows(path, columns)
    task = _task(path, rows)
    listing = Listing(path.parent)
    by_site = grouped(rows, lambda row: row.site or path.stem)
    by_patient = f"split at random by patient from {path.name}" if any(row.patient for row in rows) else AT_RANDOM
    split = "" if any(row.split for row in rows) else by_patient
    sites = []
    for name in sorted(by_site):
        records = with_splits([_record(path, row, task, listing) for row in by_site[name]], task, fractions, seed)
        sites.append(SiteFiles(name, path.parent, tuple(records), table=path.name, split=split))
    info = infer_info(path.stem, task, sites)
    if task == "classification":
        check_classes(path, info.classes, "add rows of the others")
    return FederationFiles(replace(info, name=path.stem), tuple(sites), tuple(unheeded(path, columns)))


def _task(path: Path, rows: Sequence[TableRow]) -> Task:
    files = [row for row in rows if suffix_of(row.target)]
    if files and len(files) < len(rows):
        odd = next(row for row in rows if not suffix_of(row.target))
        raise DataError(
            f"{path}:{odd.line}: targets must all be masks or all be classes, got {odd.target!r} and "
            f"{files[0].target!r}; correct the column, or write a table for each"
        )
    return "segmentation" if files else "classification"


def unheeded(path: Path, columns: Columns, *, patients_told: bool = False) -> list[str]:
    """Return a message each for missing columns of sites and patients (unless known otherwise), and unused columns."""
    table = read_table(path)
    names = {what: _column(table, what, getattr(columns, what)) for what in _NAMES}
    said = {
        "site": f"no column gives the site, so all images belong to one, {path.stem!r}; name it with --site-column",
        "patient": "no column gives the patient, so each image counts as a separate patient; name it with "
        "--patient-column",
    }
    lines = [line for what, line in said.items() if not names[what] and not (what == "patient" and patients_told)]
    unused = [name for name in table.columns if name and name not in names.values()]
    return lines + ([f"columns that are not used: {', '.join(unused)}"] if unused else [])


def _record(path: Path, row: TableRow, task: Task, listing: Listing) -> Record:
    image = listing.on_disk(inside(path, row.line, row.image))
    masks = task == "segmentation"
    target = listing.on_disk(inside(path, row.line, row.target)) if masks else composed(row.target)
    patient = row.patient or owner_of(image)
    case = image.removesuffix(suffix_of(image)) if is_volume(image) else patient
    return Record(image, target, patient, case, row.split)
