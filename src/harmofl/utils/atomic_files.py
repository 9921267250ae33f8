"""Writing files so that a kill or a full disk at any moment leaves the old file or the new one, never half of one."""

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from harmofl.errors import RunError, StorageError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # no such locks on Windows
    fcntl = None


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in the folder, see `locked`; where there are no such locks, True."""
    if fcntl is None:
        return True
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON as its standard has it: what is not a finite number is null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing into one line for a person."""
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from None


def not_written(path: Path, error: OSError) -> StorageError:
    """What the operating system says about writing in one line, with what to do."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    fix = "free space or choose another folder" if full else "choose another folder"
    return StorageError(f"{path}: could not be written ({error.strerror or error}); {fix}, then repeat the command")


def check_writable(path: Path) -> None:
    """Look before long work whether something can be written at `path`, as far as that can be told.

    Raises:
        StorageError: if the folder that is to hold it, or the next one above that is there, does not let it.
    """
    near = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), Path.cwd())
    if near.is_dir() and not os.access(near, os.R_OK | os.W_OK | os.X_OK):
        raise not_written(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def cache_folder() -> Path:
    """Where this person's programs keep what they can make anew: $XDG_CACHE_HOME/harmofl or ~/.cache/harmofl.

    Raises:
        RuntimeError: if nobody knows where home is.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if Path(given).is_absolute() else Path.home() / ".cache") / "harmofl"


def write_atomic(path: Path, content: bytes) -> None:
    """Write beside, flush to the disk, rename.

    Raises:
        StorageError: if the disk is full or not writable; the file then has its old content.
    """
    beside = path.with_name(f".{path.name}.tmp")  # one name, so that what a kill leaves is overwritten
    with storing(path):
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            _flush_folder(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Put a rename on the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Within, no other process that asks for the same is there; a lock ends with its process, however that ends.

    Args:
        folder: to lock; it is there.
        doing: what is done with it, for the message.

    Raises:
        RunError: if another process has it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RunError(f"{folder}: another process is {doing} it; wait until it has ended") from None
    finally:
        os.close(handle)
