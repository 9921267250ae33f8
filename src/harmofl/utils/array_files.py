"""Files of named arrays, .npz, that are written array by array and replaced as a whole."""

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from harmofl.utils.atomic_files import replacing, storing


@contextmanager
def array_file(path: Path) -> Iterator[Callable[[Mapping[str, np.ndarray]], None]]:
    """Yield a function that adds arrays to a new .npz file, which is renamed to `path` if the context ends in no error.

    Arrays are written as they come: those of many sites need not be in memory at once.

    Raises:
        StorageError: if the disk is full or not writable.
    """
    with replacing(path) as partial:
        with storing(path):
            file = partial.open("wb")
            archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)

        def add(arrays: Mapping[str, np.ndarray]) -> None:
            for name, array in arrays.items():
                with storing(path), archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)

        try:
            yield add
            with storing(path):
                archive.close()
                file.flush()
                os.fsync(file.fileno())
        finally:
            for close in (archive.close, file.close):
                with suppress(OSError, ValueError):  # after an error, such as a full disk
                    close()


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays into one .npz file; raise StorageError if the disk is full or not writable."""
    with array_file(path) as add:
        add(arrays)
