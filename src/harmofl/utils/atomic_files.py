"""Atomic writes of files and folders: a kill or a full disk leaves the old content or the new, never a part of it."""

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from harmofl.errors import ConfigError, RunError, StorageError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no fcntl
    fcntl = None


def is_locked(folder: Path) -> bool:
    """Return True if a process holds the lock of `locked` on the folder, or if the system has no such locks."""
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
    """Return the value as standard JSON, with null for numbers that are not finite."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Raise StorageError with a one-line message in place of an OSError within the context."""
    try:
        yield
    except StorageError:  # an OSError too, but one that says so already
        raise
    except OSError as error:
        raise not_written(path, error) from None


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it exists; raise StorageError if it cannot be made."""
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def not_written(path: Path, error: OSError) -> StorageError:
    """Return a StorageError for an OSError from writing, with its reason and what to do."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    fix = "free space or choose another folder" if full else "choose another folder"
    return StorageError(f"{path}: could not be written ({error.strerror or error}); {fix}, then repeat the command")


def check_writable(path: Path, *, file: bool = False) -> None:
    """Check before long work that `path` can be written, as far as names and permissions tell.

    Args:
        path: the folder, or file, that will be written.
        file: whether it is a file.

    Raises:
        ConfigError: if something else is in the way at `path` or above it.
        StorageError: if the nearest existing folder is not writable.
    """
    near = next((place for place in (path, *path.absolute().parents) if place.exists()), Path.cwd())
    if file and path.is_dir():
        raise ConfigError(f"{path}: must be a file, but is a folder; choose another name")
    if not near.is_dir() and not (file and near == path):
        raise ConfigError(f"{path}: must be {'in ' * file}a folder, but {near} is a file; choose another folder")
    if near.is_dir() and not os.access(near, os.R_OK | os.W_OK | os.X_OK):
        raise not_written(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def cache_folder() -> Path:
    """Return the user's cache folder: $XDG_CACHE_HOME/harmofl or ~/.cache/harmofl.

    Raises:
        RuntimeError: if the home directory is unknown.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if Path(given).is_absolute() else Path.home() / ".cache") / "harmofl"


@contextmanager
def replacing(path: Path, ending: str = "tmp") -> Iterator[Path]:
    """Yield a path beside `path` for a new file or folder, which is renamed to `path` if the context ends in no error.

    Args:
        path: the file to create or replace, or the folder to create; a folder there must be empty.
        ending: the end of the temporary name. What a kill leaves there is deleted by the next use of the same name, so
            processes that may write `path` at the same time need different ones.

    Raises:
        StorageError: if it cannot be renamed.
    """
    partial = path.absolute().with_name(f".{path.absolute().name}.{ending}")
    _delete(partial)
    try:
        yield partial
        with storing(path):
            partial.replace(path)
    finally:
        _delete(partial)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that `path` has its old content or the new one, also after a power failure.

    Raises:
        StorageError: if the disk is full or not writable; the file then keeps its old content.
    """
    with storing(path):
        with replacing(path) as partial, partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _flush_folder(path.parent)


def write_secret_file(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read; raise FileExistsError if there is one."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append a line of JSON to a file and flush it to the disk.

    Raises:
        StorageError: if the disk is full or not writable.
    """
    with storing(path), path.open("a", encoding="utf-8") as file:
        file.write(strict_json(value) + "\n")
        file.flush()
        os.fsync(file.fileno())


def whole_lines(text: str) -> list[str]:
    """Return the lines that `append_line` wrote, without a last one that a kill cut short."""
    return [line for line in text.rpartition("\n")[0].splitlines() if line.strip()]


def _flush_folder(folder: Path) -> None:
    """Flush a rename to the disk, where the system supports it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Hold an exclusive lock on an existing folder within the context; it ends with its process, also by a kill.

    Raises:
        RunError: if another process holds the lock; `doing` is the action on the folder, for the message.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder}: another process is {doing} it; wait until that has ended") from None
        yield
    finally:
        os.close(handle)
