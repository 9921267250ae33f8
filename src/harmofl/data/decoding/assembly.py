"""Decoding all records of a site into the arrays of its three splits."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from harmofl.data.checking.problem import Problem
from harmofl.data.decoding.images import read_header
from harmofl.data.decoding.records import decode_record
from harmofl.data.decoding.store import Rows
from harmofl.data.layout.files import SiteFiles
from harmofl.data.manifest import SPLITS, FederationInfo
from harmofl.errors import DataError

Progress = Callable[[str, int, int], None]
Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...]]
"""Images, targets and cases of one split, as `site.Split` takes them."""
Built = tuple[dict[str, Arrays], list[Problem]]
"""A site's arrays by split, or nothing and what is wrong."""


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


def assemble(site: SiteFiles, info: FederationInfo, rows: Callable[[str], Rows], progress: Progress | None) -> Built:
    """Decode a site.

    Args:
        site: what to decode; its structure has been checked.
        info: with the size that all images get.
        rows: makes an empty growing array for a name such as "train-images".
        progress: told the site, how many images are done and how many there are.

    Returns:
        the arrays of each split and nothing else, or no arrays and what is wrong.
    """
    problems = []
    deep = _has_deep(site)
    parts = {split: _Part(rows(f"{split}-images"), rows(f"{split}-targets")) for split in SPLITS}
    for done, record in enumerate(site.records, start=1):
        try:
            images, targets = decode_record(site.folder, record, info)
        except DataError as error:
            problems.append(Problem("error", site.name, record.image, str(error)))
        else:
            parts[record.split].append(as_float(images) if deep else images, targets, record.case)
        if progress:
            progress(site.name, done, len(site.records))
    problems = problems or [_no_slices(site, name) for name, part in parts.items() if not part.cases]
    if problems:
        return {}, problems
    return {name: (p.images.finish(), p.targets.finish(), tuple(p.cases)) for name, p in parts.items()}, []


def as_float(images: np.ndarray) -> np.ndarray:
    """Return 8-bit images as float32 in [0, 1], and float32 ones as they are."""
    return images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images


def _has_deep(site: SiteFiles) -> bool:
    """Tell whether any image has 16 bits, so that 8 would lose some."""
    for record in site.records:
        try:
            if read_header(site.folder / record.image).deep:
                return True
        except DataError:
            continue  # reported when it is decoded
    return False


def _no_slices(site: SiteFiles, split: str) -> Problem:
    message = f'{split} must have a slice with a mask that is not empty; mend the masks or use slices = "all"'
    return Problem("error", site.name, "", message)
