"""Search for the files of a download."""

from collections.abc import Iterable
from pathlib import Path

from harmofl.data.decoding.images import read_header
from harmofl.data.layout.site_files import files_below
from harmofl.errors import DataError

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2")
_LISTED = 5


def find_one(download: Path, name: str) -> Path:
    """Return the file of that name in the download or one or two folders below.

    Raises:
        DataError: if there is no such file, or several.
    """
    found = [path for pattern in ("", "*/", "*/*/") for path in sorted(download.glob(pattern + name))]
    if not found:
        raise DataError(f"{download}: must hold {name}, but does not; {hint(download)}")
    if len(found) > 1:
        raise DataError(f"{download}: must hold {name} once, got {found[0]} and {found[1]}; give the folder of one")
    return found[0]


def hint(download: Path) -> str:
    """Return the remedy for a download in which no file was found."""
    packed = [
        path.name for path in files_below(download) if path.suffix.lower() in ARCHIVES and ".nii" not in path.name
    ]
    give = "give the folder that holds the download"
    return f"{give}; if it is still packed in {packed[0]}, unpack that first" if packed else give


def relative(paths: Iterable[Path], download: Path) -> tuple[str, ...]:
    """Return the paths relative to the download as text."""
    return tuple(path.relative_to(download).as_posix() for path in paths)


def sides(folder: str, names: set[str]) -> list[str]:
    """Return a line for each name in the folder, or one line for all if there are more than 5."""
    if len(names) > _LISTED:
        return [f"{folder}: {len(names)} files, such as {min(names)}"]
    return [f"{folder}/{name}" for name in sorted(names)]


def png_size(path: Path) -> tuple[int, int]:
    """Return (H, W) from the header.

    Raises:
        DataError: naming the file, if it cannot be read.
    """
    try:
        return read_header(path).size
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from None
