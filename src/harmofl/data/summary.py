"""Summaries of a federation: a table for `harmofl data show`, and messages about missing classes and masks."""

from harmofl.data.checks.structure import reading_problems
from harmofl.data.manifest import SPLITS
from harmofl.data.site import Federation


def describe(federation: Federation) -> list[dict[str, str]]:
    """Return one row per site and split: numbers of images and cases, size, and number of images with each class."""
    return [
        {
            "site": site.name,
            "split": name,
            "images": str(len(split)),
            "cases": str(len(set(split.cases))),
            "size": "x".join(map(str, split.images.shape[1:])),
            **{label: str(split.showing(k)) for k, label in enumerate(site.classes)},
        }
        for site in federation.sites
        for name in SPLITS
        for split in [site.split(name)]
    ]


def absent_classes(federation: Federation) -> list[str]:
    """Return a message for every class without training images at a site; this is allowed."""
    return [
        f"{site.name}: no training image shows class {label!r}, so the site cannot learn it; "
        "see `harmofl data show`, or exclude the site with data.sites"
        for site in federation.sites
        for k, label in enumerate(site.classes)
        if not site.train.showing(k)
    ]


def said_of_masks(federation: Federation) -> list[str]:
    """Return messages about masks that are read in an unusual way."""
    return [str(problem) for problem in reading_problems(federation.info)]
