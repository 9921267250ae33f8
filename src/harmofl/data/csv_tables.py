"""Reading of CSV tables with a header, such as metadata.csv and manifest.csv, and writing of tables of results."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmofl.errors import DataError

_EMPTY = frozenset(("", "nan", "<na>", "na", "n/a", "#n/a", "null", "none", "nat", "-nan"))
"""Texts that programs write for a missing value."""
_ZIP, _LOOKED_AT = b"PK\x03\x04", 4096
"""The first bytes of a spreadsheet file; older spreadsheets, and UTF-16, hold zero bytes."""
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows, of which the first is the header, as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


@dataclass(frozen=True)
class Table:
    """The rows of a table with their line numbers; column names are normalised by `column_name`."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]

    def require(self, columns: Sequence[str]) -> None:
        """Raise DataError for the first of `columns` that the table does not have."""
        for column in columns:
            if column not in self.columns:
                names = ", ".join(filter(None, self.columns))
                raise DataError(f"{self.path}: column {column!r} is missing; the columns are {names}; add or rename it")

    def require_values(self, columns: Iterable[str]) -> None:
        """Raise DataError for the first row without a value in one of `columns`, with the number of others."""
        for column in columns:
            lines = [(line, row[column]) for line, row in self.rows if is_empty(row[column])]
            if not lines:
                continue
            (line, text), fix = lines[0], "fill it in or delete the row"
            if len(lines) > 1:
                fix = f"so are {len(lines) - 1} more rows; fill them in or delete the rows"
            if len(lines) == len(self.rows) > 1:
                fix = f"so are all {len(lines)} rows; fill them in or delete the column"
            got = f" ({text!r} stands for no value)" if text else ""
            raise DataError(f"{self.path}:{line}: {column} is empty{got}; {fix}")


def is_empty(text: str) -> bool:
    """Return True if a value is missing: "", or a text that spreadsheets, R and pandas write for it."""
    return text.casefold() in _EMPTY


def column_name(text: str) -> str:
    """Return a column's name as used in `Table`: in lower case, with _ for spaces and hyphens."""
    return "_".join(text.lower().replace("-", " ").split())


def read_table(path: Path) -> Table:
    """Read a comma-separated UTF-8 table; surrounding spaces are stripped, and missing values are "".

    Raises:
        DataError: if it is not such a table, has no header, a column twice, or a row with more values than columns.
    """
    try:
        _demand_text(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            columns = tuple(map(column_name, header))
            _check_header(path, header, columns)
            rows = [(reader.line_num, _row(path, reader.line_num, columns, values)) for values in reader if values]
            return Table(path, columns, tuple(rows))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; import the data or check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: must be a comma-separated UTF-8 table, but {error}; save it again") from None
    except OSError as error:
        raise DataError(f"{path}: must be a readable table, but {error.strerror}; repair or remove it") from None


def _demand_text(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
    if start.startswith(_ZIP) or b"\0" in start:
        raise DataError(
            f"{path}: must be a comma-separated UTF-8 table, but is another kind of file; save it as CSV UTF-8"
        )


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    if not any(columns):
        raise DataError(f"{path}: must begin with the names of the columns, but is empty; fill it in or delete it")
    if len(columns) == 1:
        for separator, name in _OTHER_SEPARATORS.items():
            if separator in header[0]:
                raise DataError(f"{path}: columns must be separated by commas, got {name}; save it again with commas")
    for column, count in Counter(columns).items():
        if column and count > 1:
            raise DataError(f"{path}: column {column!r} must occur once, got {count}; rename or delete the others")


def _row(path: Path, line: int, columns: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    if any(values[len(columns) :]):
        got = f"{len(values)} for {len(columns)} columns, the last {values[-1]!r}"
        raise DataError(
            f"{path}:{line}: must have one value per column, got {got}; put quotes around values with commas"
        )
    padded = [*values, *[""] * len(columns)]
    return {column: value.strip() for column, value in zip(columns, padded, strict=False)}
