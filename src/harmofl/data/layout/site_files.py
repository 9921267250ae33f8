"""Files of each site: the result of reading any layout, before decoding, and the lists of files in folders."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from harmofl.data.layout.file_names import composed, escaped, folded, is_hidden, normal, suffix_of, written
from harmofl.data.manifest import FederationInfo, Record
from harmofl.errors import DataError
from harmofl.utils.grouping import grouped

ALL_FOR_TESTING = "all for testing"
AT_RANDOM = "split at random, each image a patient of its own"


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
        raise DataError(f"{escaped(folder)}: must be a readable folder ({reason}); change its permissions") from None


def is_file(path: Path | str) -> bool:
    """Return True if the file exists; False, not an error, for a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises OSError if the name is too long


def site_name(folder: Path) -> str:
    """Return the folder's own name; for a link, the name of the link and not of its target."""
    return Path(os.path.abspath(folder)).name  # noqa: PTH100  resolve() follows links


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

    def on_disk(self, file: str) -> str:
        """Return the path of the matching file, or the given path in normal form if there is none."""
        return self.find(normal(file)) or normal(file)

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


def demand_free(target: Path, purpose: str, source: Path) -> None:
    """Raise DataError if a new folder exists, is inside its source or has an invalid name; `purpose` ends the line."""
    for path in (source, target, target.resolve()):
        written(path)
    if target.resolve().is_relative_to(source.resolve()) and source.is_dir():
        raise DataError(f"{target}: must not be inside {source}; choose another folder to {purpose}")
    if target.exists() or target.is_symlink():
        raise DataError(f"{target}: exists already; choose another folder to {purpose}")
