"""From a published download to a federation on disk, for `harmofl data prepare`."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harmofl.data.layout.site_files import demand_free, written
from harmofl.data.manifest import FederationInfo
from harmofl.data.splits import FRACTIONS, check_fractions
from harmofl.errors import ConfigError, DataError
from harmofl.ingest.datasets import PUBLISHED
from harmofl.ingest.datasets.dataset import About, Item, Wishes
from harmofl.ingest.datasets.download_files import hint
from harmofl.ingest.workshop import Download, Workshop
from harmofl.types import Progress
from harmofl.utils.atomic_files import locked, storing

FEWEST_PIXELS = 16
_DRAWN = ("patients", "images")
Warned = Callable[[str], None]


def about_dataset(name: str) -> About:
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
    about = about_dataset(name)
    splits = splits or about.splits[0]
    if splits not in about.splits:
        raise ConfigError(f"--splits must be {' or '.join(about.splits)} for {name}, got {splits!r}")
    if tile is not None and about.tile is None:
        raise ConfigError(f"--tile is for large images, and {name} has none; leave it out")
    if tile is not None and 0 < tile < FEWEST_PIXELS:
        raise ConfigError(f"--tile must be at least {FEWEST_PIXELS} pixels, or 0 for whole images, got {tile}")
    if tile == 0 and about.task == "classification":
        raise ConfigError(
            f"--tile must be at least {FEWEST_PIXELS} pixels for {name}, which are cut out around cells, got 0"
        )
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
    about = about_dataset(name)
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
            exists or is inside the download.
        RunError: if another process is preparing the same target.
        StorageError: if the target cannot be written; what has been converted is kept.
    """
    demand_free(target, "prepare to", download.folder)
    check_fractions(fractions)
    if fractions != FRACTIONS and download.wishes.splits not in _DRAWN:
        raise ConfigError(f"--fractions are of splits that are drawn; leave them out with {download.wishes.splits}")
    if download.problems and not partial:
        only_extra = all(line.startswith("extra: ") for line in download.problems)
        raise DataError(
            f"{download.folder}: must be a complete download of {download.about.title}, but "
            f"{_first(download.problems)}; {'take that out' if only_extra else 'download the rest'}, or take what is "
            f"there with --partial"
        )
    with storing(target):
        workshop = Workshop(target.parent / f".{target.name}.preparing", download)
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
