"""Storage of objects that wait for their turn, in memory up to a limit and beyond it in temporary files."""

import pickle
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from harmofl.utils.atomic_files import storing

MEMORY = 1 << 30
"""Default limit of the bytes in memory."""


class Spool:
    """Objects by name; a context manager, which deletes the files on exit.

    Args:
        memory: largest number of bytes in memory.
    """

    def __init__(self, memory: int | None = None) -> None:
        self._memory = MEMORY if memory is None else memory
        self._held: dict[str, tuple[Any, int]] = {}
        self._files: dict[str, Path] = {}
        self._written = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._folder:
            self._folder.cleanup()

    def __contains__(self, name: str) -> bool:
        return name in self._held or name in self._files

    def put(self, name: str, item: Any, size: int) -> None:
        """Store an object of `size` bytes; a later one of the same name replaces it.

        Raises:
            StorageError: if it does not fit into memory and cannot be written.
        """
        if name in self:
            self.pop(name)
        if sum(held for _, held in self._held.values()) + size <= self._memory:
            self._held[name] = item, size
            return
        with storing(Path(tempfile.gettempdir())):
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="harmofl-")
            path = Path(self._folder.name) / str(self._written)
            path.write_bytes(pickle.dumps(item, protocol=5))
        self._files[name] = path
        self._written += 1

    def pop(self, name: str) -> Any:
        """Return an object and remove it.

        Raises:
            KeyError: if there is none of this name.
        """
        if name in self._held:
            return self._held.pop(name)[0]
        path = self._files.pop(name)
        item = pickle.loads(path.read_bytes())
        path.unlink()
        return item
