"""Summaries of a federation: a table for `harmofl data show`, and messages about missing classes and masks."""

import numpy as np

from harmofl.data.checks.structure import reading_problems
from harmofl.data.manifest import SPLITS, FederationInfo
from harmofl.data.site import Federation
from harmofl.data.split import Split
from harmofl.data.volume_split import VolumeSplit


def describe(federation: Federation) -> list[dict[str, str]]:
    """Return one row per site and split: numbers of images and cases, size, and number of images with each class.

    Of whole volumes the size is the smallest and the largest number of voxels (D, H, W) after preprocessing.
    """
    return [
        {
            "site": site.name,
            "split": name,
            "images": str(len(split)),
            "cases": str(len(set(split.cases))),
            "size": _size(split),
            **{label: str(split.showing(k)) for k, label in enumerate(site.classes)},
        }
        for site in federation.sites
        for name in SPLITS
        for split in [site.split(name)]
    ]


def _size(split: Split) -> str:
    if not isinstance(split, VolumeSplit):
        return "x".join(map(str, split.images.shape[1:]))
    shapes = sorted((volume.shape for volume in split.images), key=lambda shape: (np.prod(shape), shape))
    return " to ".join(dict.fromkeys("x".join(map(str, shape)) for shape in (*shapes[:1], *shapes[-1:])))


def resampled(info: FederationInfo) -> str:
    """Return the spacing of whole volumes that no setting gave, as a sentence."""
    assert info.volumes is not None and info.volumes.spacing is not None
    lengths = " x ".join(f"{length:g}" for length in info.volumes.spacing)
    return f"volumes are resampled to the median spacing of the training volumes, {lengths} mm (D x H x W)"


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
