"""Decoding of all records of a site into the arrays of its three splits."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from harmofl.data.checks.problem import Problem
from harmofl.data.decoding.growing_arrays import Rows
from harmofl.data.decoding.images import as_float
from harmofl.data.decoding.record import decode_record
from harmofl.data.layout.file_names import is_volume
from harmofl.data.layout.site_files import FederationFiles, SiteFiles
from harmofl.data.manifest import SPLITS, FederationInfo, Record
from harmofl.data.parallel import QUICK, in_order
from harmofl.errors import DataError
from harmofl.types import Progress
from harmofl.utils.hardware import check_memory

Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...], *tuple[np.ndarray, ...]]
"""Images, targets and cases of one split, in the order of `site.Split`; for volumes, flat ones, and their shapes."""
Built = tuple[dict[str, Arrays], list[Problem]]
"""A site's arrays by split without problems, or no arrays and the problems."""


@dataclass
class _Part:
    images: Rows
    targets: Rows
    cases: list[str] = field(default_factory=list)

    def append(self, images: np.ndarray, targets: np.ndarray, case: str) -> None:
        if len(images):
            self.images.append(images)
            self.targets.append(targets)
            self.cases += [case] * len(images)

    def be_empty_like(self, other: "_Part") -> None:
        self.images.append(other.images.none())
        self.targets.append(other.targets.none())


AT_ONCE = 8
"""The minimum number of images in memory as float32 during decoding or training."""


def check_fits(files: FederationFiles, info: FederationInfo, held: bool) -> None:
    """Raise ConfigError unless the resized images fit into free memory, all together with their masks if `held`."""
    H, W = info.size or (0, 0)
    count = sum(len(site.records) for site in files.sites) if held else 0
    needed = H * W * (count * (info.channels + (info.task == "segmentation")) + 4 * AT_ONCE * info.channels)
    what = f"{count} images" if held else f"{AT_ONCE} images at a time"
    instead = "choose a smaller size" + (", or keep decoded images on disk with data.cache" if held else "")
    check_memory(needed, f"{info.name}: {what} of {H}x{W} pixels", instead)


def assemble(site: SiteFiles, info: FederationInfo, rows: Callable[[str], Rows], progress: Progress | None) -> Built:
    """Decode a site whose structure has been checked; `rows` creates the array of a name such as "train-images"."""
    try:
        return _assembled(site, info, rows, progress, deep=False)
    except _DeepImageError:
        return _assembled(site, info, rows, progress, deep=True)


class _DeepImageError(Exception):
    """An image has 16 bits, so all images must be kept as float32 to lose no precision."""


def _assembled(
    site: SiteFiles, info: FederationInfo, rows: Callable[[str], Rows], progress: Progress | None, *, deep: bool
) -> Built:
    problems = []
    parts = {split: _Part(rows(f"{split}-images"), rows(f"{split}-targets")) for split in SPLITS}

    def decoded(record: Record) -> tuple[np.ndarray, np.ndarray] | DataError:
        try:
            return decode_record(site.folder, record, info)
        except DataError as error:
            return error

    outcomes = in_order(decoded, site.records, together=at_once(site))
    for done, (record, outcome) in enumerate(zip(site.records, outcomes, strict=True), start=1):
        if isinstance(outcome, DataError):
            problems.append(Problem("error", site.name, record.image, str(outcome)))
        else:
            images, targets = outcome
            if images.dtype != np.uint8 and not deep:
                raise _DeepImageError
            parts[record.split].append(as_float(images) if deep else images, targets, record.case)
        if progress:
            progress(site.name, done, len(site.records))
    needed = {record.split for record in site.records}
    problems = problems or [_no_slices(site, name) for name in sorted(needed) if not parts[name].cases]
    if problems:
        return {}, problems
    for name in set(SPLITS) - needed:  # a site with a test split only
        parts[name].be_empty_like(parts["test"])
    return {name: (p.images.finish(), p.targets.finish(), tuple(p.cases)) for name, p in parts.items()}, []


def at_once(site: SiteFiles) -> int:
    """Return the number of records per task of a thread: 1 for volumes, which are slow, `QUICK` for photographs."""
    return 1 if any(is_volume(record.image) for record in site.records[:1]) else QUICK


def _no_slices(site: SiteFiles, split: str) -> Problem:
    message = f'{split} must have a slice with a mask that is not empty; correct the masks or use slices = "all"'
    return Problem("error", site.name, "", message)
