"""Memory-mapped .npy files that hold no open file: a process may open few, often 1,024, but map many thousands."""

import ctypes
import math
import mmap
import os
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from harmofl.errors import StorageError

_FAILED = ctypes.c_void_p(-1).value


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc


class _Mapping:
    """The owner of an array's memory, by numpy's array interface; unmapped when the last array of it is gone.

    Python's own `mmap`, which numpy.memmap uses, keeps a file open for each mapping (before `trackfd` of Python 3.13).
    """

    def __init__(self, path: Path, length: int, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        libc = _libc()
        with path.open("rb") as file:
            address = libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
        if address == _FAILED:
            reason = os.strerror(ctypes.get_errno())
            raise StorageError(
                f"{path}: must be mapped into memory, but the system refuses ({reason}); raise its limit of maps per "
                "process (vm.max_map_count on Linux), or go without a cache"
            )
        weakref.finalize(self, libc.munmap, address, length).atexit = False  # arrays may be in use until the very end
        self.__array_interface__ = {
            "version": 3,
            "data": (address + offset, True),
            "shape": shape,
            "typestr": dtype.str,
        }


def mapped_array(path: Path) -> np.ndarray:
    """Return the array of a .npy file, memory-mapped and read-only.

    Raises:
        OSError: if the file cannot be read; a StorageError if the system cannot map it.
        ValueError: if it is not such a file, is cut short, or has fields, objects or Fortran's order.
    """
    if os.name != "posix":
        found: np.ndarray = np.load(path, mmap_mode="r")
        return found
    with path.open("rb") as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        offset, there = file.tell(), os.fstat(file.fileno()).st_size
    length = offset + dtype.itemsize * math.prod(shape)
    if fortran or dtype.hasobject or dtype.names or there < length:
        raise ValueError(f"{path}: must be a whole array of numbers in C order, got {there} of {length} bytes")
    return np.asarray(_Mapping(path, length, offset, shape, dtype))


def is_mapped(array: np.ndarray) -> bool:
    """Return True if the array is a view of `mapped_array`, which needs no memory of its own."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return isinstance(array.base, _Mapping | mmap.mmap)
