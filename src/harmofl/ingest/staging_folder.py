"""The temporary folder in which a download is converted; it is renamed to the target when complete.

A journal in this hidden folder lists the converted items, so that the same command resumes an interrupted one.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harmofl.data.manifest import FederationInfo, Record, write_info, write_manifest
from harmofl.data.parallel import in_order
from harmofl.data.splits import with_splits
from harmofl.errors import DataError
from harmofl.ingest.datasets import PUBLISHED
from harmofl.ingest.datasets.dataset import About, Discovered, Item, Wishes
from harmofl.types import Progress
from harmofl.utils.grouping import grouped

_VERSION = 1  # increase it when conversion changes
_JOURNAL, _WISHES = "journal.jsonl", "wishes.json"


@dataclass(frozen=True)
class Download:
    """A published data set on disk.

    Args:
        about: the description of the data set.
        folder: the folder of the download.
        wishes: the user's options.
        found: the files of the download.
        problems: a line for every missing or unexpected file, and every wrong count; empty for a complete download.
    """

    about: About
    folder: Path
    wishes: Wishes
    found: Discovered
    problems: tuple[str, ...]


class Workshop:
    """The folder in which a federation is created, and its journal."""

    def __init__(self, folder: Path, download: Download) -> None:
        self.folder = folder
        self._download = download
        self._dataset = PUBLISHED[download.about.name]
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self) -> None:
        """Empty the folder, unless it holds the results of an earlier command with the same options."""
        wishes = {"version": _VERSION, "name": self._download.about.name, **asdict(self._download.wishes)}
        path, text = self.folder / _WISHES, json.dumps(wishes)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return
        for old in self.folder.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        path.write_text(text, encoding="utf-8")

    def convert(self, workers: int | None, progress: Progress | None) -> tuple[list[tuple[str, Record]], list[str]]:
        """Convert the items that are not in the journal; return (site, record) of all items, and the errors."""
        done, failed = self._done(), []
        items = self._download.found.items
        keys = [_key(item) for item in items]
        todo = [(item, key) for item, key in zip(items, keys, strict=True) if key not in done]
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as journal:
            for count, (key, site, outcome) in enumerate(in_order(self._convert, todo, workers), start=1):
                done[key] = [record for record in outcome if isinstance(record, Record)]
                wrong = [line for line in outcome if isinstance(line, str)]
                failed += wrong
                if not wrong:
                    rows = [record.row() for record in done[key]]
                    journal.write(json.dumps([key, rows]) + "\n")
                    journal.flush()
                if progress:
                    progress(site, len(items) - len(todo) + count, len(items))
        order = {key: item.site for item, key in zip(items, keys, strict=True) if key in done}
        return [(site, record) for key, site in order.items() for record in done[key]], failed

    def _convert(self, task: tuple[Item, str]) -> tuple[str, str, Sequence[Record | str]]:
        """Convert an item and return its key, its site, and its records or errors."""
        item, key = task
        outcome: Sequence[Record | str]
        try:
            outcome = self._dataset.convert(item, self.folder / item.site, self._download.wishes)
        except DataError as error:
            outcome = [str(error)]
        place = item.image.relative_to(self._download.folder).as_posix()
        told = (f"{place}: {one}" if isinstance(one, str) else one for one in outcome)
        return key, item.site, list(told)

    def _done(self) -> dict[str, list[Record]]:
        """Return the records in the journal by key; an incomplete last line is removed from the file."""
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
        """Split the patients, write the tables, remove files without a record, and rename the folder."""
        info = _info(self._download, target)
        for site, rows in grouped(records, lambda row: row[0]).items():
            drawn = with_splits([record for _, record in rows], info.task, fractions, self._download.wishes.seed)
            write_manifest(self.folder / site, drawn)
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
    """Return a hash of an item's description and of the sizes and times of its files."""
    stats = [
        (path.stat().st_size, path.stat().st_mtime_ns)
        for path in (item.image, item.target)
        if isinstance(path, Path) and path.is_file()
    ]
    return hashlib.sha256(repr((item, stats)).encode("utf-8", "surrogateescape")).hexdigest()[:24]


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
