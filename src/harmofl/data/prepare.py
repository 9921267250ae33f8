"""From a published download to a federation on disk, for `harmofl data prepare`: several files at a time, resumable.

What is being made lies in a hidden folder beside the target and gets its name when all of it is there. The folder
keeps a journal of what has been converted, so that the same command goes on where an earlier one was interrupted.
"""

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harmofl.data.decoding.assembly import Progress
from harmofl.data.layout.files import written
from harmofl.data.manifest import FederationInfo, Record, write_info, write_manifest
from harmofl.data.parallel import in_order
from harmofl.data.published import PUBLISHED
from harmofl.data.published.dataset import About, Found, Item, Wishes
from harmofl.data.published.files import hint
from harmofl.data.splits import FRACTIONS, with_splits
from harmofl.errors import ConfigError, DataError
from harmofl.files import locked, storing

FEWEST_PIXELS = 16
_VERSION = 1  # raise it when converting changes
_JOURNAL, _WISHES = "journal.jsonl", "wishes.json"
Warned = Callable[[str], None]


@dataclass(frozen=True)
class Download:
    """A published data set as it was found on disk.

    Args:
        about: what the data set is.
        folder: where the download is.
        wishes: what the user chose.
        found: its files.
        problems: a line for everything that is missing or does not belong; empty for a complete download.
    """

    about: About
    folder: Path
    wishes: Wishes
    found: Found
    problems: tuple[str, ...]


def described(name: str) -> About:
    """What the data set of that name is.

    Raises:
        ConfigError: if there is none.
    """
    if name not in PUBLISHED:
        raise ConfigError(f"a data set must be one of {', '.join(PUBLISHED)}, got {name!r}")
    return PUBLISHED[name].ABOUT


def wishes_for(name: str, *, splits: str | None = None, tile: int | None = None, seed: int = 0) -> Wishes:
    """What the user chose, and for the rest what the data set says.

    Args:
        name: of the data set.
        splits: one of the data set's ways to split it.
        tile: side of the tiles in pixels; 0 keeps images whole.
        seed: of whatever is drawn.

    Raises:
        ConfigError: if there is no such data set or no such way to split or cut it.
    """
    about = described(name)
    splits = splits or about.splits[0]
    if splits not in about.splits:
        raise ConfigError(f"--splits must be {' or '.join(about.splits)} for {name}, got {splits!r}")
    if tile is not None and about.tile is None:
        raise ConfigError(f"--tile is for large images, and {name} has none; leave it out")
    if tile is not None and 0 < tile < FEWEST_PIXELS:
        raise ConfigError(f"--tile must be at least {FEWEST_PIXELS} pixels, or 0 for whole images, got {tile}")
    return Wishes(splits, about.tile if tile is None else tile or None, seed)


def look_through(name: str, folder: Path, wishes: Wishes | None = None) -> Download:
    """Find a data set's files in a download and compare them with what a complete one has.

    Args:
        name: of the data set, one of `PUBLISHED`.
        folder: that holds the unpacked download, itself or in a folder below.
        wishes: how to split and cut it; by patients and as the data set says, if not given.

    Raises:
        ConfigError: if there is no such data set or no such way to split it.
        DataError: if nothing of it is found.
    """
    about = described(name)
    dataset, wishes = PUBLISHED[name], wishes or wishes_for(name)
    written(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: must be the folder of the download, but there is none; check the path")
    found = dataset.find(folder, wishes)
    if not found.items:
        layout = f"looked for {about.layout}"
        raise DataError(f"{folder}: nothing of {about.title} is there; {layout}; {hint(folder)}")
    problems = [f"missing: {line}" for line in found.missing] + [f"extra: {line}" for line in found.extra]
    return Download(about, folder, wishes, found, (*problems, *_miscounted(about, found.items)))


def _miscounted(about: About, items: Iterable[Item]) -> list[str]:
    """A line for every site that has another number than in a complete download."""
    got: dict[str, int] = defaultdict(int)
    for item in items:
        got[item.site] += item.count
    wrong = [(site, got[site], count) for site, count in about.counts.items() if got[site] != count]
    return [f"count: {site} has {is_} {about.unit}, a complete download has {must}" for site, is_, must in wrong]


def prepare(
    download: Download,
    target: Path,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    partial: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
    warned: Warned | None = None,
) -> FederationInfo:
    """Convert a download into a federation of its own.

    Args:
        download: as found by `look_through`.
        target: the folder to make; it must not exist.
        fractions: train, val and test shares of the patients, where the publisher gives no split.
        partial: whether to do without what is missing or cannot be read.
        workers: how many files at a time; as many as there are cores if not given.
        progress: told the site, how many items are done and how many there are.
        warned: told of every file that is left out because it cannot be read, if `partial`.

    Returns:
        what was written to federation.toml.

    Raises:
        DataError: if the download is not complete or a file of it cannot be read, unless `partial`; or if the target
            exists.
        RunError: if another process is preparing the same target.
        StorageError: if the target cannot be written; what has been converted is kept.
    """
    if target.exists():
        raise DataError(f"{target}: exists already; choose another folder to prepare to")
    if download.problems and not partial:
        raise DataError(
            f"{download.folder}: must be a complete download of {download.about.title}, but "
            f"{_first(download.problems)}; download the rest, or take what is there with --partial"
        )
    with storing(target):
        workshop = _Workshop(target.parent / f".{target.name}.preparing", download)
        with locked(workshop.folder, "preparing"):
            workshop.begin()
            records, failed = workshop.convert(workers, progress)
            if failed and not partial:
                raise DataError(
                    f"{download.folder}: every file must be readable, but {_first(failed)}; download it again and "
                    "repeat the command, which goes on where it was, or do without with --partial"
                )
            for line in failed:
                (warned or print)(line)
            return workshop.finish(records, target, fractions)


def _first(lines: Sequence[str]) -> str:
    return lines[0] if len(lines) == 1 else f"{lines[0]} (and {len(lines) - 1} more)"


def _info(download: Download, target: Path) -> FederationInfo:
    about = download.about
    tile = download.wishes.tile
    info = FederationInfo(
        name=target.resolve().name,
        task=about.task,
        classes=about.classes,
        channels=about.channels,
        size=(tile, tile) if tile else about.size,
        slices=about.slices,
        split="patients" if download.wishes.splits == "patients" else "images",
        origin=f"{about.title}, {about.source}. {about.citation}",
        licence=about.licence,
    )
    return replace(info, **download.found.info)


def _by_site(records: Iterable[tuple[str, Record]]) -> dict[str, list[Record]]:
    sites: dict[str, list[Record]] = defaultdict(list)
    for site, record in records:
        sites[site].append(record)
    return sites


class _Workshop:
    """The folder in which a federation is made, and its journal."""

    def __init__(self, folder: Path, download: Download) -> None:
        self.folder = folder
        self._download = download
        self._dataset = PUBLISHED[download.about.name]
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self) -> None:
        """Empty the folder, unless it holds what an earlier command with the same wishes has done."""
        wishes = {"version": _VERSION, "name": self._download.about.name, **asdict(self._download.wishes)}
        path, text = self.folder / _WISHES, json.dumps(wishes)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return
        for old in self.folder.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        path.write_text(text, encoding="utf-8")

    def convert(self, workers: int | None, progress: Progress | None) -> tuple[list[tuple[str, Record]], list[str]]:
        """Convert what the journal does not have yet; returns (site, row) of all, and what went wrong."""
        done, failed = self._done(), []
        items = self._download.found.items
        keys = [_key(item) for item in items]
        todo = [(item, key) for item, key in zip(items, keys, strict=True) if key not in done]
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as journal:
            for count, (key, site, outcome) in enumerate(in_order(self._convert, todo, workers), start=1):
                if isinstance(outcome, str):
                    failed.append(outcome)
                else:
                    done[key] = outcome
                    rows = [record.row() for record in outcome]
                    journal.write(json.dumps([key, rows]) + "\n")
                    journal.flush()
                if progress:
                    progress(site, len(items) - len(todo) + count, len(items))
        order = {key: item.site for item, key in zip(items, keys, strict=True) if key in done}
        return [(site, record) for key, site in order.items() for record in done[key]], failed

    def _convert(self, task: tuple[Item, str]) -> tuple[str, str, list[Record] | str]:
        item, key = task
        try:
            return key, item.site, self._dataset.convert(item, self.folder / item.site, self._download.wishes)
        except DataError as error:
            return key, item.site, f"{item.image.relative_to(self._download.folder).as_posix()}: {error}"

    def _done(self) -> dict[str, list[Record]]:
        """The journal's whole lines; a last one that a kill has cut off is dropped."""
        path, done = self.folder / _JOURNAL, {}
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole, encoding="utf-8")
        for line in whole.splitlines():
            key, rows = json.loads(line)
            done[key] = [Record(*row) for row in rows]
        return done

    def finish(
        self, records: Sequence[tuple[str, Record]], target: Path, fractions: tuple[float, float, float]
    ) -> FederationInfo:
        """Split the patients, write the tables, remove what no row names, and give the folder its name."""
        info = _info(self._download, target)
        for site, rows in sorted(_by_site(records).items()):
            split = with_splits(site, rows, info.task, fractions, self._download.wishes.seed)
            write_manifest(self.folder / site, split)
        write_info(self.folder, info)
        named = {f"{site}/{file}" for site, record in records for file in (record.image, record.target)}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and name not in named and not _belongs(name):
                path.unlink()
        self.folder.replace(target)
        return info


def _belongs(name: str) -> bool:
    return name == "federation.toml" or (name.endswith("/manifest.csv") and name.count("/") == 1)


def _key(item: Item) -> str:
    """What an item's result depends on: its description, and the size and time of its files."""
    stats = [
        (path.stat().st_size, path.stat().st_mtime_ns)
        for path in (item.image, item.target)
        if isinstance(path, Path) and path.is_file()
    ]
    return hashlib.sha256(repr((item, stats)).encode("utf-8", "surrogateescape")).hexdigest()[:24]
