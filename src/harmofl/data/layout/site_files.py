"""The files of each site, as read from every layout before decoding, and helpers for paths and names."""

import os
import posixpath
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harmofl.data.manifest import FederationInfo, Record
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
ALL_FOR_TESTING = "all for testing"
AT_RANDOM = "split at random, each image a patient of its own"
_BREAKS = "\n\r\t\v\f\x1b\x1c\x1d\x1e\x85\u2028\u2029"
"""Characters that end a line of text or of a table, or control a terminal."""


@dataclass(frozen=True)
class SiteFiles:
    """One site on disk: its folder and one record per image file, with paths relative to that folder.

    `unlisted` are image files in the folder without a row in metadata.csv; they are not used. `table` is the file
    whose rows are the records, or "" if the records are the files of the folder. `split` describes the source of the
    split, such as "split by the folders train, test". `masks` are the folders in which masks are looked for.
    """

    name: str
    folder: Path
    records: tuple[Record, ...]
    unlisted: tuple[str, ...] = ()
    table: str = ""
    split: str = ""
    masks: tuple[str, ...] = ()


@dataclass(frozen=True)
class FederationFiles:
    """A federation on disk, sites sorted by name; `said` are messages to the user about how it was read."""

    info: FederationInfo
    sites: tuple[SiteFiles, ...]
    said: tuple[str, ...] = ()


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


def image_files(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted; empty if the folder does not exist.

    Raises:
        DataError: if the folder cannot be read, or the name of an image is invalid (see `written`).
    """
    if not folder.is_dir():
        return []
    return [written(path) for path in entries(folder) if suffix_of(path.name) and is_file(path)]


def has_images(folder: Path) -> bool:
    """Return True if an image file is directly in `folder`."""
    return any(suffix_of(path.name) and is_file(path) for path in entries(folder))


def _of_runs(folder: Path) -> bool:
    """Return True if training or a comparison wrote the folder, or a folder inside it if it is named runs."""
    made = [folder, *folder.glob("*")] if folder.name == "runs" else [folder]
    return any((one / name).is_file() for one in made for name in ("rounds.jsonl", "table.json"))


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly in `folder` that are not hidden, sorted; each real folder once despite links.

    Folders of runs and comparisons are skipped: their pictures are not images of a site.

    Raises:
        DataError: if the folder cannot be read, or the name of one inside is invalid (see `written`).
    """
    found = [path for path in entries(folder) if path.is_dir() and not _of_runs(path)]
    links = [path for path in found if path.is_symlink()]
    here = folder.resolve()
    taken = {here, *here.parents, *(here / path.name for path in found if path not in links)}
    for path in links:
        if path.resolve() in taken:
            found.remove(path)
        taken.add(path.resolve())
    return [written(path) for path in found]


def files_below(folder: Path) -> list[Path]:
    """Return all files below that are not hidden, sorted.

    Links to folders are followed, but each real folder is entered once.

    Raises:
        DataError: if a folder cannot be read, or a name is invalid (see `written`).
    """
    found: list[Path] = []
    entered: set[Path] = set()

    def enter(place: Path) -> None:
        if (real := place.resolve()) in entered:
            return
        entered.add(real)
        folders = []
        for path in entries(place):
            if path.is_dir():
                folders.append(path)
            else:
                found.append(written(path))
        for path in sorted(folders, key=lambda path: (path.is_symlink(), path.name)):
            enter(path)

    if folder.is_dir():
        enter(folder)
    return found


def entries(folder: Path) -> list[Path]:
    """Return the files and folders directly in `folder` that are not hidden, sorted.

    Raises:
        DataError: if the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{escaped(folder)}: must be a folder that can be read ({reason}); mend its permissions"
        ) from None


def is_table(name: str) -> bool:
    """Return True for a table's file name, also for metadata.csv.txt, whose last suffix Windows hides."""
    return name.lower().endswith(_TABLES) or ".csv" in name.lower()


def is_hidden(name: str) -> bool:
    """Return True if a file or folder of that name is skipped: it is hidden, or made by an operating system."""
    return name.startswith(".") or name in _OF_SYSTEMS


def is_file(path: Path | str) -> bool:
    """Return True if the file exists; False, not an error, for a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises OSError if the name is too long


def site_name(folder: Path) -> str:
    """Return the folder's own name; for a link, the name of the link and not of its target."""
    return Path(os.path.abspath(folder)).name  # noqa: PTH100  resolve() follows links


def normal(path: str) -> str:
    """Return a path relative to a site's folder in normal form, for comparison: `./x` and `y/../x` become `x`."""
    return posixpath.normpath(path)


@dataclass
class Listing:
    """The names in a folder, for finding files whose names were written on another system.

    Systems differ in how they compose an umlaut, in whether they distinguish upper and lower case, and in the separator
    of folders. An exact match takes precedence.
    """

    folder: Path
    _names: dict[str, frozenset[str]] = field(default_factory=dict)
    _alike: dict[tuple[str, bool], dict[str, list[str]]] = field(default_factory=dict)

    def find(self, file: str) -> str:
        """Return the path of the matching file, relative to the folder, or "" if there is none."""
        return self._find(file) or ("\\" in file and self._find(normal(file.replace("\\", "/")))) or ""

    def _find(self, file: str) -> str:
        place = ""
        for part in file.split("/"):
            name = part if part in self._inside(place) else self._meant(place, part)
            if not name:
                return ""
            place = f"{place}/{name}" if place else name
        return place

    def _inside(self, place: str) -> frozenset[str]:
        if place not in self._names:
            try:
                self._names[place] = frozenset(os.listdir(self.folder / place))  # noqa: PTH208  names alone
            except OSError:
                self._names[place] = frozenset()
        return self._names[place]

    def _meant(self, place: str, part: str) -> str:
        """Return the only name that differs in Unicode composition, or else in case, or ""."""
        for form, fold in ((composed, False), (folded, True)):
            if (place, fold) not in self._alike:
                self._alike[place, fold] = grouped(self._inside(place), form)
            names = self._alike[place, fold].get(form(part), [])
            if len(names) == 1:
                return names[0]
        return ""


def folded(name: str) -> str:
    """Return a name without case and Unicode composition, which some systems do not distinguish."""
    return composed(composed(name).casefold())


def grouped(names: Iterable[str], form: Callable[[str], str]) -> dict[str, list[str]]:
    """Return the sorted names, grouped by the result of `form`."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(form(name), []).append(name)
    return found


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


def demand_free(target: Path, purpose: str, source: Path) -> None:
    """Check that a new folder does not exist and is not inside its source folder.

    Args:
        target: the folder to create.
        purpose: the purpose of the folder, for the message.
        source: the folder from which it is made.

    Raises:
        DataError: if the folder exists, is inside its source, or has an invalid name.
    """
    for path in (source, target, target.resolve()):
        written(path)
    if target.resolve().is_relative_to(source.resolve()) and source.is_dir():
        raise DataError(f"{target}: must not be inside {source}; choose another folder to {purpose}")
    if target.exists() or target.is_symlink():
        raise DataError(f"{target}: exists already; choose another folder to {purpose}")


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
