"""Memory-mapped .npy files that hold no open file: a process may open few, often 1,024, but map many thousands."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy


class _Mapping:
    """The owner of an array's memory, by numpy's array interface; unmapped when the last array of it is gone.

    Python's own `mmap`, which numpy.memmap uses, keeps a file open for each mapping.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        import torch

        self._bytes = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
        address = self._bytes.data_ptr() + offset
        self.__array_interface__ = {"version": 3, "data": (address, True), "shape": shape, "typestr": dtype.str}


def mapped_array(path: Path) -> np.ndarray:
    """Return the array of a .npy file, memory-mapped and read-only.

    Raises:
        OSError: if the file cannot be read or mapped.
        ValueError: if it is not such a file, is cut short, or has objects or Fortran's order.
    """
    with path.open("rb") as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        offset = file.tell()
    length = offset + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if fortran or dtype.hasobject or path.stat().st_size < length:
        raise ValueError(f"{path}: must be a whole array in C order, got {path.stat().st_size} of {length} bytes")
    try:
        return np.asarray(_Mapping(path, offset, shape, dtype))
    except RuntimeError as error:  # torch's, for a failed system call
        raise OSError(f"{path}: cannot be mapped into memory ({error})") from error


def is_mapped(array: np.ndarray) -> bool:
    """Return True if the array is a view of `mapped_array`, which needs no memory of its own."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return isinstance(array.base, _Mapping)
