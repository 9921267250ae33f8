"""Reading a table with a header from a CSV file as people save them: metadata.csv and manifest.csv."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from harmofl.errors import DataError

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Table:
    """The rows of a table with their line numbers; columns are in lower case and without spaces around."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]

    def require(self, columns: Sequence[str]) -> None:
        """Check that the table has `columns`.

        Raises:
            DataError: naming the first that is missing.
        """
        for column in columns:
            if column not in self.columns:
                names = ", ".join(filter(None, self.columns))
                raise DataError(f"{self.path}: column {column!r} is missing; the columns are {names}; add or rename it")


def column_name(text: str) -> str:
    """Return a column's name as `Table` has it: any case and spaces around it are allowed."""
    return text.strip().lower()


def read_table(path: Path) -> Table:
    """Read a UTF-8 table with commas; values are without spaces around, and missing ones are "".

    Raises:
        DataError: if it is no such table, has no header or a column twice, or a row with more values than columns.
    """
    with _reading(path) as file:
        reader = csv.reader(file)
        header = next(reader, [])
        columns = tuple(map(column_name, header))
        _check_header(path, columns)
        rows = tuple((reader.line_num, _row(path, reader.line_num, columns, values)) for values in reader if values)
        return Table(path, columns, rows)


@contextmanager
def _reading(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; import the data or check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: must be a UTF-8 table with commas, but {error}; save it again") from None
    except OSError as error:
        raise DataError(f"{path}: must be a table that can be read, but {error.strerror}; mend or remove it") from None


def _check_header(path: Path, columns: Sequence[str]) -> None:
    if not any(columns):
        raise DataError(f"{path}: must begin with the names of its columns, but is empty; fill it in or delete it")
    if len(columns) == 1:
        for separator, name in _OTHER_SEPARATORS.items():
            if separator in columns[0]:
                raise DataError(f"{path}: columns must be separated by commas, got {name}; save it again with commas")
    for column, count in Counter(columns).items():
        if column and count > 1:
            raise DataError(f"{path}: column {column!r} must be there once, got {count}; rename or delete the others")


def _row(path: Path, line: int, columns: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    if any(values[len(columns) :]):
        got = f"{len(values)} for {len(columns)} columns, the last {values[-1]!r}"
        raise DataError(f"{path}:{line}: must have a value a column, got {got}; put quotes around values with commas")
    padded = [*values, *[""] * len(columns)]
    return {column: value.strip() for column, value in zip(columns, padded, strict=False)}
