"""Which files belong to which site: what every layout is read into before anything is decoded."""

import os
import posixpath
from dataclasses import dataclass
from pathlib import Path

from harmofl.data.manifest import FederationInfo, Record
from harmofl.errors import DataError

PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
VOLUMES = (".nii.gz", ".nii")
SUFFIXES = VOLUMES + PHOTOGRAPHS


@dataclass(frozen=True)
class SiteFiles:
    """One site on disk: its folder and one record an image file, paths relative to that folder.

    `unlisted` are image files in the folder that no row of metadata.csv names; they are not used. `table` is
    the file whose rows the records are, or "" if they are the files of the folder.
    """

    name: str
    folder: Path
    records: tuple[Record, ...]
    unlisted: tuple[str, ...] = ()
    table: str = ""


@dataclass(frozen=True)
class FederationFiles:
    """A federation on disk, sites sorted by name."""

    info: FederationInfo
    sites: tuple[SiteFiles, ...]


def suffix_of(name: str) -> str:
    """Return the supported suffix that `name` ends with, as it is written there, or ""."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[-len(suffix) :]
    return ""


def stem_of(name: str) -> str:
    """Return the file name without folders and without its supported suffix."""
    return Path(name).name.removesuffix(suffix_of(name))


def owner_of(image: str) -> str:
    """Who an image is of if nobody says: itself, its path without images/ and without its suffix."""
    return image.removesuffix(suffix_of(image)).removeprefix("images/")


def is_volume(name: str) -> bool:
    """Tell whether the file is a NIfTI volume."""
    return suffix_of(name).lower() in VOLUMES


def image_files(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted; none if there is no such folder.

    Raises:
        DataError: if the folder may not be read, or the name of an image is not UTF-8.
    """
    if not folder.is_dir():
        return []
    return [written(path) for path in entries(folder) if suffix_of(path.name) and is_file(path)]


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly in `folder` that are not hidden, sorted.

    Raises:
        DataError: if the folder may not be read, or the name of one in it is not UTF-8.
    """
    return [written(path) for path in entries(folder) if path.is_dir()]


def files_below(folder: Path) -> list[Path]:
    """Return all files below that are neither hidden nor of macOS' archiver, sorted; links to folders are followed.

    Raises:
        DataError: if a name is not UTF-8.
    """
    found = []
    for place, inner, names in os.walk(folder, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name != "__MACOSX")
        found += [written(Path(place, name)) for name in sorted(names) if not name.startswith(".")]
    return found


def entries(folder: Path) -> list[Path]:
    """Return whatever is directly in `folder` and not hidden, sorted.

    Raises:
        DataError: if the folder may not be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{escaped(folder)}: must be a folder that can be read ({reason}); mend its permissions"
        ) from None


def is_file(path: Path | str) -> bool:
    """Tell whether a file is there; a name that no file can have is not there."""
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises OSError if the name is too long


def site_name(folder: Path) -> str:
    """Return the folder's own name: a link's, not its target's."""
    return Path(os.path.abspath(folder)).name  # noqa: PTH100  resolve() follows links


def normal(path: str) -> str:
    """Return a path relative to a site's folder in the one way it is compared: `./x` and `y/../x` are `x`."""
    return posixpath.normpath(path)


def written(path: Path) -> Path:
    """Return `path` if its name can be written in UTF-8, as every table and report is.

    Raises:
        DataError: naming the file, with the bytes that are not UTF-8 escaped.
    """
    name = str(path)
    if name != name.encode("utf-8", "replace").decode():
        raise DataError(f"{escaped(path)}: the names of files and folders must be UTF-8; rename it")
    return path


def demand_free(target: Path, purpose: str, source: Path) -> None:
    """Demand a name for a new folder that is free and not inside the folder that it is made of.

    Args:
        target: the folder to make.
        purpose: what it is for, for the message.
        source: the folder it is made of.

    Raises:
        DataError: if it is not so.
    """
    for path in (source, target, target.resolve()):
        written(path)
    if target.resolve().is_relative_to(source.resolve()) and source.is_dir():
        raise DataError(f"{target}: must not be inside {source}; choose another folder to {purpose}")
    if target.exists() or target.is_symlink():
        raise DataError(f"{target}: exists already; choose another folder to {purpose}")


def escaped(path: Path | str) -> str:
    """Return the path as text that can be written, the bytes that are not UTF-8 escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
