"""File names: suffixes that are read, hidden names, and the forms in which names are compared and written."""

import os
import posixpath
import unicodedata
from pathlib import Path

from harmofl.errors import DataError

PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
VOLUMES = (".nii.gz", ".nii")
SUFFIXES = VOLUMES + PHOTOGRAPHS
OTHER_IMAGES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".tga", ".webp"),
    *(".pbm", ".pgm", ".pnm", ".ppm", ".mat", ".npy", ".npz"),
    *(".hdr", ".img", ".mha", ".mhd", ".mrxs", ".ndpi", ".nrrd", ".svs"),
)
"""Suffixes of image files that are not read."""
_TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".xlsm", ".ods")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_OF_SYSTEMS = frozenset(
    ("__MACOSX", "@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information")
)
"""Folders made by archivers, network drives and operating systems, for thumbnails or deleted files."""
_MAGIC_AT, _MAGIC = 128, b"DICM"
_BREAKS = "\n\r\t\v\f\x1b\x1c\x1d\x1e\x85\u2028\u2029"
"""Characters that end a line of text or of a table, or control a terminal."""


def suffix_of(name: str) -> str:
    """Return the supported suffix of `name` in its own case, or ""."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[-len(suffix) :]
    return ""


def stem_of(name: str) -> str:
    """Return the file name without folders and without its supported suffix."""
    return Path(name).name.removesuffix(suffix_of(name))


def owner_of(image: str) -> str:
    """Return the default patient of an image: its path without images/ and without its suffix."""
    return composed(image.removesuffix(suffix_of(image)).removeprefix("images/"))


def composed(name: str) -> str:
    """Return a name in Unicode form NFC, in which names are compared: an umlaut is one character."""
    return unicodedata.normalize("NFC", name)


def is_volume(name: str) -> bool:
    """Return True if the file is a NIfTI volume."""
    return suffix_of(name).lower() in VOLUMES


def is_table(name: str) -> bool:
    """Return True for a table's file name, also for metadata.csv.txt, whose last suffix Windows hides."""
    return name.lower().endswith(_TABLES) or ".csv" in name.lower()


def is_hidden(name: str) -> bool:
    """Return True if a file or folder of that name is skipped: it is hidden, or made by an operating system."""
    return name.startswith(".") or name in _OF_SYSTEMS


def normal(path: str) -> str:
    """Return a path relative to a site's folder in normal form, for comparison: `./x` and `y/../x` become `x`."""
    return posixpath.normpath(path)


def folded(name: str) -> str:
    """Return a name without case and Unicode composition, which some systems do not distinguish."""
    return composed(composed(name).casefold())


def written(path: Path) -> Path:
    """Return `path` if reports and tables can hold its name: UTF-8 without line breaks.

    Raises:
        DataError: naming the file, with invalid characters escaped.
    """
    name = str(path)
    if name != name.encode("utf-8", "replace").decode():
        raise DataError(f"{escaped(path)}: the names of files and folders must be UTF-8; rename it")
    if not name.isprintable() and any(character in name for character in _BREAKS):
        raise DataError(f"{escaped(path)}: the names of files and folders must not hold line breaks; rename it")
    return path


def escaped(path: Path | str) -> str:
    """Return the path as printable text, with line breaks and bytes that are not UTF-8 escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(ascii(character)[1:-1] if character in _BREAKS else character for character in text)


def is_dicom(path: Path) -> bool:
    """Return True for a DICOM file: by its suffix, or if that is missing or a number, by DICM at byte 128."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # a file of a series may be called IM.1 or 1.2.840.113
        return False
    try:
        with path.open("rb") as file:
            file.seek(_MAGIC_AT)
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False
