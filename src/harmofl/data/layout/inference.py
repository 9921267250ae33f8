"""What a plain folder does not write down: the classes and channels of a federation, told from its files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harmofl.data.decoding.images import read_header, read_image
from harmofl.data.layout.labels import Reading, infer_labels, read_as
from harmofl.data.layout.site_files import SiteFiles
from harmofl.data.manifest import FederationInfo
from harmofl.errors import DataError
from harmofl.types import Task

_FEW, _NEARLY_ALL = 4, 0.95
"""How many colours a mask has, and for what share of its pixels."""


def infer_info(
    name: str, task: Task, sites: Sequence[SiteFiles], expected: tuple[Task, tuple[str, ...]] | None = None
) -> FederationInfo:
    """Describe a plain folder of sites.

    Classes are the sorted labels of all sites, or follow the masks (see `labels.read_labels`), or are as `expected` of
    the task. Channels are 3 if any image is in colour. Files that cannot be read are passed over here and reported when
    they are decoded.
    """
    if task == "classification":
        found = Reading(tuple(sorted({record.target for site in sites for record in site.records})))
    else:
        found = infer_labels(sites)
    if expected and expected[0] == task:
        found = read_as(expected[1], found)
    colour = any(_is_colour(site.folder / record.image) for site in sites for record in site.records)
    channels = 3 if colour else 1
    info = FederationInfo(name, task, found.classes, channels, values=found.values)
    return replace(info, remark=found.remark, doubt=found.doubt)


def looks_like_mask(image: Path) -> bool:
    """Tell whether nearly all pixels have one of few colours, apart from what JPEG does to them."""
    try:
        planes = read_image(image)
    except DataError:
        return False
    coarse = (planes * 7.99).astype(np.int64) if planes.dtype != np.uint8 else planes.astype(np.int64) >> 5
    counts = np.bincount((coarse[:3] * np.array([1, 8, 64])[: len(coarse[:3]), None, None]).sum(axis=0).reshape(-1))
    return bool(np.sort(counts)[-_FEW:].sum() >= _NEARLY_ALL * counts.sum())


def _is_colour(image: Path) -> bool:
    try:
        return read_header(image, turned=False).colour
    except DataError:
        return False
