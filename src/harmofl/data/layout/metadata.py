"""Reading of `metadata.csv`, an optional table in the folder of sites that gives patients, splits and labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harmofl.data.csv_tables import Table, column_name, read_table
from harmofl.data.layout.file_names import composed
from harmofl.data.layout.site_files import Listing
from harmofl.data.manifest import SPLITS
from harmofl.errors import DataError

FILE = "metadata.csv"
SITE_COLUMNS = ("site", "hospital", "center", "centre", "institution")
PATIENT_COLUMNS = ("patient", "patient_id", "subject", "subject_id", "group")
"""Default names of the column of patients."""
_NAMES = {"site": ("site",), "image": ("file",), "target": ("label",), "patient": PATIENT_COLUMNS, "split": ("split",)}


@dataclass(frozen=True)
class TableRow:
    """One line of metadata.csv or of a table of images; values without a column are "".

    `image` is relative to the site's folder or to its images/, or in a table of images to the table's folder.
    """

    line: int
    site: str
    image: str
    target: str
    patient: str
    split: str


@dataclass(frozen=True)
class Metadata:
    """The rows of metadata.csv, and the names of its unused columns."""

    rows: tuple[TableRow, ...]
    unused: tuple[str, ...]


def metadata_path(root: Path) -> Path:
    """Return the path of the metadata.csv in a folder of sites, whether or not it exists."""
    return root / (Listing(root).find(FILE) or FILE)


def read_metadata(root: Path, *, split_column: str | None = None, patient_column: str | None = None) -> Metadata | None:
    """Read `root/metadata.csv`, or return None if there is none.

    Args:
        root: the folder of sites.
        split_column: the column of train, val or test; "split", if there is one, by default.
        patient_column: the column of patients; the first one found of `PATIENT_COLUMNS` by default.

    Raises:
        DataError: if a column is missing or a value is not allowed, naming the line.
    """
    path = metadata_path(root)
    if path.is_dir():
        raise DataError(f"{path}: must be a table, but is a folder; rename it")
    if not path.is_file():
        if wanted := split_column or patient_column:
            raise DataError(f"{root}: column {wanted!r} needs a metadata.csv, but there is none; add one")
        return None
    table = read_table(path)
    asked = {"image": "file", "patient": patient_column, "split": split_column}
    given = {what: column_name(name) for what, name in asked.items() if name is not None}
    table.require(list(given.values()))
    columns = {
        what: given.get(what) or next((name for name in known if name in table.columns), "")
        for what, known in _NAMES.items()
    }
    if not table.rows:
        raise DataError(f"{path}: must have a row for each image, but has none; add them or delete the file")
    table.require_values(filter(None, columns.values()))
    unused = tuple(name for name in table.columns if name and name not in columns.values())
    return Metadata(tuple(rows_of(table, columns, row_of)), unused)


def rows_of(
    table: Table,
    columns: Mapping[str, str],
    read: Callable[[Path, int, Mapping[str, str], Mapping[str, str]], TableRow],
) -> list[TableRow]:
    """Return all rows, read by `read`, given the name of each column or "".

    Raises:
        DataError: the first fault, and how many rows have one.
    """
    rows, faults = [], []
    for line, values in table.rows:
        try:
            rows.append(read(table.path, line, values, columns))
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError(faults[0] + f" ({len(faults)} rows have such faults)" * (len(faults) > 1))
    return rows


def row_of(path: Path, line: int, values: Mapping[str, str], columns: Mapping[str, str]) -> TableRow:
    """Return the row of a line's values, given the name of each column or "".

    Raises:
        DataError: if the split is not one, naming the line.
    """
    found = {what: values[column] if column else "" for what, column in columns.items()}
    found |= {what: composed(found[what]) for what in ("site", "patient")}
    split = found["split"].lower()
    if columns["split"] and split not in SPLITS:
        got = found["split"]
        raise DataError(f"{path}:{line}: {columns['split']} must be train, val or test, got {got!r}; correct the row")
    return TableRow(line, **{**found, "split": split})
