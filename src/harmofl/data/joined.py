"""Concatenated or reordered views of arrays, in memory or on disk, without copies."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Joined:
    """A read-only array over the rows of several arrays, with indexing, shape and type.

    Args:
        parts: arrays whose rows have one shape; if their types differ, uint8 values v are read as v / 255.
        order: positions in the concatenated parts, in the desired order; all of them by default.
    """

    def __init__(self, parts: Sequence["np.ndarray | Joined"], order: np.ndarray | None = None) -> None:
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self._order = order
        types: set[np.dtype[Any]] = {part.dtype for part in parts}
        self.dtype: np.dtype[Any] = types.pop() if len(types) == 1 else np.dtype(np.float32)
        self.shape: tuple[int, ...] = (int(self._ends[-1]) if order is None else len(order), *parts[0].shape[1:])

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the rows at a slice or an array of positions, or a single row, in memory."""
        chosen = np.arange(len(self))[rows]
        at = np.atleast_1d(chosen)
        at = at if self._order is None else self._order[at]
        found = np.empty((len(at), *self.shape[1:]), dtype=self.dtype)
        owner = np.searchsorted(self._ends, at, side="right")
        for k, part in enumerate(self._parts):
            mine = np.flatnonzero(owner == k)
            if len(mine):
                taken = part[at[mine] - (self._ends[k] - len(part))]
                found[mine] = taken / np.float32(255) if taken.dtype != self.dtype else taken
        return found if np.ndim(chosen) else found[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows in memory."""
        return np.asarray(self[:], dtype=dtype)
