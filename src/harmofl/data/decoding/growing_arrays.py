"""Arrays that grow along their first axis, in memory or in a .npy file that is memory-mapped at the end."""

from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from harmofl.utils.mapped_files import mapped_array


class Rows:
    """An array in memory that grows along its first axis."""

    def __init__(self) -> None:
        self._pending: list[np.ndarray] = []

    def append(self, rows: np.ndarray) -> None:
        """Add rows at the end; all must have one shape and type."""
        self._pending.append(rows)

    def none(self) -> np.ndarray:
        """Return an array without rows, with the shape and type of the appended rows."""
        return self._pending[0][:0].copy()

    def finish(self) -> np.ndarray:
        """Return all rows as one array; at least one array, possibly without rows, must have been appended."""
        array = np.concatenate(self._pending)
        self._pending.clear()
        return array


class FileRows(Rows):
    """Rows appended to a .npy file, so that only a buffer of them is in memory."""

    def __init__(self, path: Path, buffer: int = 1 << 25) -> None:
        super().__init__()
        self._path = path
        self._buffer = buffer
        self._pending_bytes = 0
        self._count = 0

    def append(self, rows: np.ndarray) -> None:
        """Add rows at the end; they are written once `buffer` bytes are pending."""
        super().append(rows)
        self._pending_bytes += rows.nbytes
        if self._pending_bytes >= self._buffer:
            self._flush()

    def finish(self) -> np.ndarray:
        """Write the pending rows and the number of rows, and return the file memory-mapped."""
        self._write_header(self._flush(), "r+b")
        return mapped_array(self._path)

    def _flush(self) -> np.ndarray:
        """Write and return the pending rows; an array without rows of the same shape stays pending."""
        rows = np.concatenate(self._pending)
        if not self._count:
            self._write_header(rows, "wb")
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(rows).data)
        self._count += len(rows)
        self._pending, self._pending_bytes = [rows[:0].copy()], 0
        return rows

    def _write_header(self, like: np.ndarray, mode: str) -> None:
        """Write the .npy header; numpy pads it so that its length does not depend on the number of rows."""
        shape = (self._count, *like.shape[1:])
        header = {"descr": npy.dtype_to_descr(like.dtype), "fortran_order": False, "shape": shape}
        with self._path.open(mode) as file:
            npy.write_array_header_1_0(file, header)
