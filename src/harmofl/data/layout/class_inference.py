"""Inference of a federation's classes and channels from the files of a plain folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harmofl.data.decoding.images import header_if_readable, read_image
from harmofl.data.layout.labels import Reading, infer_labels, read_as
from harmofl.data.layout.site_files import SiteFiles
from harmofl.data.manifest import FederationInfo
from harmofl.errors import DataError
from harmofl.types import Task

_FEW, _NEARLY_ALL = 4, 0.95
"""The number of colours in a mask, and the minimum share of its pixels with these colours."""


def infer_info(
    name: str, task: Task, sites: Sequence[SiteFiles], expected: tuple[Task, tuple[str, ...]] | None = None
) -> FederationInfo:
    """Infer the description of a plain folder of sites.

    Classes are the sorted labels of all sites, or inferred from the masks (see `labels.infer_labels`), or those of
    `expected` if it has the same task. Channels are 3 if any image is in colour. Unreadable files are skipped here and
    reported when they are decoded.
    """
    if task == "classification":
        found = Reading(tuple(sorted({record.target for site in sites for record in site.records})))
    else:
        found = infer_labels(sites)
    if expected and expected[0] == task:
        found = read_as(expected[1], found)
    headers = (header_if_readable(site.folder / record.image) for site in sites for record in site.records)
    channels = 3 if any(header.colour for header in headers if header) else 1
    return FederationInfo(
        name, task, found.classes, channels, values=found.values, remark=found.remark, doubt=found.doubt
    )


def looks_like_mask(image: Path) -> bool:
    """Return True if nearly all pixels have one of few colours, within the tolerance of JPEG compression."""
    try:
        planes = read_image(image)
    except DataError:
        return False
    coarse = (planes * 7.99).astype(np.int64) if planes.dtype != np.uint8 else planes.astype(np.int64) >> 5
    counts = np.bincount((coarse[:3] * np.array([1, 8, 64])[: len(coarse[:3]), None, None]).sum(axis=0).reshape(-1))
    return bool(np.sort(counts)[-_FEW:].sum() >= _NEARLY_ALL * counts.sum())
