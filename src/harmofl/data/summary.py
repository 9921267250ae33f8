"""Summaries of a federation: a table for `harmofl data show`, and messages about missing classes and masks."""

import numpy as np

from harmofl.data.checks.structure import reading_problems
from harmofl.data.manifest import SPLITS
from harmofl.data.site import Federation, Site


def describe(federation: Federation) -> list[dict[str, str]]:
    """Return one row per site and split: numbers of images and cases, size, and number of images with each class."""
    return [_row(site, name) for site in federation.sites for name in SPLITS]


def _row(site: Site, name: str) -> dict[str, str]:
    split = site.split(name)
    channels, height, width = split.images.shape[1:]
    row = {
        "site": site.name,
        "split": name,
        "images": str(len(split)),
        "cases": str(len(set(split.cases))),
        "size": f"{channels}x{height}x{width}",
    }
    targets = np.asarray(split.targets)
    return row | {label: str(_occurrences(targets, k)) for k, label in enumerate(site.classes)}


def _occurrences(targets: np.ndarray, k: int) -> int:
    hits = targets == k
    return int(np.count_nonzero(hits.any(axis=tuple(range(1, hits.ndim)))))


def absent_classes(federation: Federation) -> list[str]:
    """Return a message for every class without training images at a site; this is allowed."""
    return [
        f"{site.name}: no training image shows class {label!r}, so the site cannot teach it; "
        "see `harmofl data show`, and leave the site out with data.sites if that is not meant"
        for site in federation.sites
        for k, label in enumerate(site.classes)
        if not _occurrences(np.asarray(site.train.targets), k)
    ]


def said_of_masks(federation: Federation) -> list[str]:
    """Return messages about masks that are read in an unusual way."""
    return [str(problem) for problem in reading_problems(federation.info)]
