"""Conversion of a downloaded published data set into a federation, for `harmofl data prepare`."""

from collections.abc import Sequence
from pathlib import Path

from harmofl.data.layout.file_names import written
from harmofl.data.layout.site_files import demand_free
from harmofl.data.manifest import FederationInfo
from harmofl.data.splits import FRACTIONS, check_fractions
from harmofl.errors import ConfigError, DataError
from harmofl.ingest.datasets import PUBLISHED
from harmofl.ingest.datasets.dataset import About, Item, Wishes
from harmofl.ingest.datasets.download_files import hint
from harmofl.ingest.staging_folder import Download, Workshop
from harmofl.types import Progress, Tell
from harmofl.utils.atomic_files import locked, storing

FEWEST_PIXELS = 16
_DRAWN = ("patients", "images")


def about_dataset(name: str) -> About:
    """Return the description of the data set of that name.

    Raises:
        ConfigError: if there is no such data set.
    """
    if name not in PUBLISHED:
        raise ConfigError(f"a data set must be one of {', '.join(PUBLISHED)}, got {name!r}")
    return PUBLISHED[name].ABOUT


def wishes_for(name: str, *, splits: str | None = None, tile: int | None = None, seed: int = 0) -> Wishes:
    """Return the user's options, see `Wishes`, with the data set's defaults for the others; tile 0 keeps images whole.

    Raises:
        ConfigError: if there is no such data set, or the split or tile is not allowed for it.
    """
    about = about_dataset(name)
    splits = splits or about.splits[0]
    if splits not in about.splits:
        raise ConfigError(f"--splits must be {' or '.join(about.splits)} for {name}, got {splits!r}")
    if tile is not None and about.tile is None:
        raise ConfigError(f"--tile is for large images, and {name} has none; omit it")
    if tile is not None and 0 < tile < FEWEST_PIXELS:
        raise ConfigError(f"--tile must be at least {FEWEST_PIXELS} pixels, or 0 for whole images, got {tile}")
    if tile == 0 and about.task == "classification":
        raise ConfigError(
            f"--tile must be at least {FEWEST_PIXELS} pixels for {name}, whose images are cut out around cells, got 0"
        )
    return Wishes(splits, about.tile if tile is None else tile or None, seed)


def look_through(name: str, folder: Path, wishes: Wishes | None = None) -> Download:
    """Find a data set's files in the folder of its unpacked download, or below, and compare them with a complete one.

    Raises:
        ConfigError: if there is no such data set.
        DataError: if the folder does not exist or holds no files of the data set.
    """
    about = about_dataset(name)
    dataset, wishes = PUBLISHED[name], wishes or wishes_for(name)
    written(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: must be the folder of the download, but does not exist; check the path")
    found = dataset.find(folder, wishes)
    if not found.items:
        layout = f"expected {about.layout}"
        raise DataError(f"{folder}: no files of {about.title} found; {layout}; {hint(folder)}")
    problems = [f"missing: {line}" for line in found.missing] + [f"extra: {line}" for line in found.extra]
    return Download(about, folder, wishes, found, (*problems, *_miscounted(about, found.items)))


def _miscounted(about: About, items: Sequence[Item]) -> list[str]:
    """Return a line for every site whose count differs from a complete download."""
    got = {site: sum(item.count for item in items if item.site == site) for site in about.counts}
    wrong = [(site, count) for site, count in about.counts.items() if got[site] != count]
    return [f"count: {site} has {got[site]} {about.unit}, a complete download has {count}" for site, count in wrong]


def prepare(
    download: Download,
    target: Path,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    partial: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
    told: Tell = print,
) -> FederationInfo:
    """Convert a download into a new federation.

    Args:
        download: the result of `look_through`.
        target: the folder to create; it must not exist.
        fractions: train, val and test shares of the patients, if the publisher gives no split.
        partial: whether to skip files that are missing or cannot be read.
        workers: the number of files processed in parallel, by default the number of cores.
        progress: called with the site, the number of converted items and the number of all items.
        told: called with one line for each file that is skipped because it cannot be read, if `partial`.

    Returns:
        the content of federation.toml.

    Raises:
        DataError: if the download is not complete or a file of it cannot be read, unless `partial`; or if the target
            exists or is inside the download.
        ConfigError: if fractions are out of range, or given for a published split.
        RunError: if another process is preparing the same target.
        StorageError: if the target cannot be written; converted files are kept.
    """
    demand_free(target, "prepare to", download.folder)
    check_fractions(fractions)
    if fractions != FRACTIONS and download.wishes.splits not in _DRAWN:
        raise ConfigError(f"--fractions are for random splits; omit them with --splits {download.wishes.splits}")
    if download.problems and not partial:
        only_extra = all(line.startswith("extra: ") for line in download.problems)
        raise DataError(
            f"{download.folder}: must be a complete download of {download.about.title}, but "
            f"{_first(download.problems)}; {'remove that' if only_extra else 'download the rest'}, or use what is "
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
                    "repeat the command, which resumes, or skip such files with --partial"
                )
            for line in failed:
                told(line)
            return workshop.finish(records, target, fractions)


def _first(lines: Sequence[str]) -> str:
    return lines[0] if len(lines) == 1 else f"{lines[0]} (and {len(lines) - 1} more)"
