"""Which files belong to which site: what every layout is read into before anything is decoded."""

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
"""Folders that archivers, network drives and systems make: of thumbnails, of what was deleted."""
_MAGIC_AT, _MAGIC = 128, b"DICM"
AT_RANDOM = "split at random, each image a patient of its own"
_BREAKS = "\n\r\t\v\f\x1b\x1c\x1d\x1e\x85\u2028\u2029"
"""What a line of text or of a table ends with, or a terminal obeys."""


@dataclass(frozen=True)
class SiteFiles:
    """One site on disk: its folder and one record an image file, paths relative to that folder.

    `unlisted` are image files in the folder that no row of metadata.csv names; they are not used. `table` is
    the file whose rows the records are, or "" if they are the files of the folder. `split` tells where the split is
    from, such as "split by the folders train, test". `masks` are the folders that masks are looked for in.
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
    """A federation on disk, sites sorted by name; `said` is what a user should know of how it was read."""

    info: FederationInfo
    sites: tuple[SiteFiles, ...]
    said: tuple[str, ...] = ()


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
    return composed(image.removesuffix(suffix_of(image)).removeprefix("images/"))


def composed(name: str) -> str:
    """Return a name in the one form in which names are compared: an umlaut is one character (NFC)."""
    return unicodedata.normalize("NFC", name)


def is_volume(name: str) -> bool:
    """Tell whether the file is a NIfTI volume."""
    return suffix_of(name).lower() in VOLUMES


def image_files(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted; none if there is no such folder.

    Raises:
        DataError: if the folder may not be read, or the name of an image cannot be written down.
    """
    if not folder.is_dir():
        return []
    return [written(path) for path in entries(folder) if suffix_of(path.name) and is_file(path)]


def has_images(folder: Path) -> bool:
    """Tell whether an image file is directly in `folder`."""
    return any(suffix_of(path.name) and is_file(path) for path in entries(folder))


def _of_runs(folder: Path) -> bool:
    """Whether it is a folder that training or a comparison wrote, or holds such ones."""
    made = [folder, *folder.glob("*")] if folder.name == "runs" else [folder]
    return any((one / name).is_file() for one in made for name in ("rounds.jsonl", "table.json"))


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly in `folder` that are not hidden, sorted; each real one once, however linked.

    Folders of runs and comparisons are passed over: their pictures are no images of a site.

    Raises:
        DataError: if the folder may not be read, or the name of one in it cannot be written down.
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
        DataError: if a folder may not be read, or a name cannot be written down.
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
    """Return whatever is directly in `folder` and not hidden, sorted.

    Raises:
        DataError: if the folder may not be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{escaped(folder)}: must be a folder that can be read ({reason}); mend its permissions"
        ) from None


def is_table(name: str) -> bool:
    """Tell whether a file is called as tables are, also as metadata.csv.txt, whose last suffix Windows hides."""
    return name.lower().endswith(_TABLES) or ".csv" in name.lower()


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of that name is passed over: a hidden one, or one that systems make."""
    return name.startswith(".") or name in _OF_SYSTEMS


def is_file(path: Path | str) -> bool:
    """Tell whether a file is there; a name that no file can have is not there."""
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises OSError if the name is too long


def site_name(folder: Path) -> str:
    """Return the folder's own name: a link's, not its target's."""
    return Path(os.path.abspath(folder)).name  # noqa: PTH100  resolve() follows links


def normal(path: str) -> str:
    """Return a path relative to a site's folder in the one way it is compared: `./x` and `y/../x` are `x`."""
    return posixpath.normpath(path)


@dataclass
class Listing:
    """What is in a folder, to find files by names that were written down elsewhere.

    Systems differ in how they compose an umlaut, in whether upper and lower case are one, and in what parts folders. A
    name that is there as it is written is that file on all of them.
    """

    folder: Path
    _names: dict[str, frozenset[str]] = field(default_factory=dict)
    _alike: dict[tuple[str, bool], dict[str, list[str]]] = field(default_factory=dict)

    def find(self, file: str) -> str:
        """Return the path, relative to the folder, of the file that is meant, or "" if there is none."""
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
        """The one name that differs in how it is composed, or else in case."""
        for form, fold in ((composed, False), (folded, True)):
            if (place, fold) not in self._alike:
                self._alike[place, fold] = grouped(self._inside(place), form)
            names = self._alike[place, fold].get(form(part), [])
            if len(names) == 1:
                return names[0]
        return ""


def folded(name: str) -> str:
    """Return a name without what some systems do not tell apart."""
    return composed(composed(name).casefold())


def grouped(names: Iterable[str], form: Callable[[str], str]) -> dict[str, list[str]]:
    """Return the names by what they become."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(form(name), []).append(name)
    return found


def written(path: Path) -> Path:
    """Return `path` if its name can be written into a table or a line, as every report does.

    Raises:
        DataError: naming the file, with what cannot be written escaped.
    """
    name = str(path)
    if name != name.encode("utf-8", "replace").decode():
        raise DataError(f"{escaped(path)}: the names of files and folders must be UTF-8; rename it")
    if not name.isprintable() and any(character in name for character in _BREAKS):
        raise DataError(f"{escaped(path)}: the names of files and folders must not hold line breaks; rename it")
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
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(ascii(character)[1:-1] if character in _BREAKS else character for character in text)


def is_dicom(path: Path) -> bool:
    """Tell by the suffix, or where there is none by the four letters that DICOM files begin with."""
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
