"""Comparison of sites by their published statistics."""

from collections.abc import Iterator, Sequence

import numpy as np

from harmofl.data.checks.problem import Problem, Severity
from harmofl.ingest.inspection.pixel_checks import WHOLE
from harmofl.ingest.inspection.site_statistics import SiteFacts

_INVERTED, _DARK, _SPACING = 0.3, 0.25, 1.25
"""Thresholds for an inverted histogram, a dark site (share of the median brightness) and the ratio of spacings."""


def decibels(profile: Sequence[Sequence[float]]) -> np.ndarray:
    """Convert (C, R) amplitudes to decibels, 20 log10, with a floor at an amplitude of 1e-6."""
    return np.asarray(20 * np.log10(np.maximum(np.asarray(profile, dtype=np.float64), 1e-6)))


def spectral_distance(one: SiteFacts, other: SiteFacts) -> float | None:
    """Return the root mean square difference of two amplitude profiles in decibels; None if shapes differ."""
    a, b = decibels(one.profile), decibels(other.profile)
    if a.shape != b.shape or not a.size:
        return None
    known = (np.asarray(one.profile) > 0) & (np.asarray(other.profile) > 0)
    return float(np.sqrt(np.mean((a - b)[known] ** 2)))


def between_sites(sites: Sequence[SiteFacts], *, resampled: bool = False) -> Iterator[Problem]:
    """Yield errors and warnings about differences between sites in task, classes, kind of image, spacing and pixels.

    Whole volumes are `resampled`, so that their spacing may differ.
    """
    if len(sites) < 2:
        return
    yield from _differ(sites, "task", [site.task for site in sites], "error")
    yield from _differ(sites, "classes", [", ".join(site.classes) for site in sites], "error")
    yield from _differ(sites, "kind of image", [_commonest(site.kinds) for site in sites], "warning")
    if not resampled:
        yield from _spacing(sites)
    yield from _intensity(sites)
    yield from _contrast(sites)


def sizes_differ(sites: Sequence[SiteFacts]) -> Iterator[Problem]:
    """Yield an error if images have several sizes and are used as they are stored."""
    stored = [site for site in sites if not site.resized]
    sizes = {size: site.site for site in stored for size in site.sizes}
    if len(sizes) > 1:
        told = ", ".join(f"{size} at {name}" for size, name in sizes.items())
        message = f"images must have one size, got {told}; give every site the same --size, which resizes them"
        yield Problem("error", "", "", message, "sizes differ")


def _commonest(counts: dict[str, int]) -> str:
    return max(counts, key=lambda name: counts[name]) if counts else ""


def _differ(sites: Sequence[SiteFacts], what: str, values: Sequence[str], severity: Severity) -> Iterator[Problem]:
    known = [(site, value) for site, value in zip(sites, values, strict=True) if value]
    for site, value in known:
        if value != (first := known[0])[1]:
            message = f"{what} is {value} here and {first[1]} at {first[0].site}; check that they belong together"
            yield Problem(severity, site.site, "", message, f"{what} differs between sites")


def _spacing(sites: Sequence[SiteFacts]) -> Iterator[Problem]:
    known = [site for site in sites if site.spacing]
    for axis, name in enumerate(("x", "y", "z")):
        values = [site.spacing[axis][1] for site in known]
        if values and max(values) > _SPACING * min(values):
            told = ", ".join(f"{site.site} {value:.2f}" for site, value in zip(known, values, strict=True))
            message = f"voxels are of different size along {name} (mm: {told}); slices are not resampled, {WHOLE} are"
            yield Problem("warning", "", "", message, "spacing differs between sites")


def _intensity(sites: Sequence[SiteFacts]) -> Iterator[Problem]:
    grey = [np.mean(site.histogram, axis=0) for site in sites if site.histogram]
    if len(grey) != len(sites) or len({len(histogram) for histogram in grey}) > 1:
        return
    means = np.array([histogram @ np.linspace(0, 1, len(histogram)) for histogram in grey])
    for k, site in enumerate(sites):
        others = np.mean([histogram for j, histogram in enumerate(grey) if j != k], axis=0)
        nearer = np.abs(grey[k] - others).sum() - np.abs(grey[k] - others[::-1]).sum()
        if nearer > _INVERTED:
            message = (
                "its histogram is closer to the inverted one of the other sites; check whether its images are inverted"
            )
            yield Problem("warning", site.site, "", message, "inverted beside other sites")
        elif means[k] < _DARK * float(np.median(means)):
            message = f"its images are far darker (mean {means[k]:.2f}) than the sites' median ({np.median(means):.2f})"
            yield Problem("warning", site.site, "", f"{message}; check the range of values", "far darker than others")


def _contrast(sites: Sequence[SiteFacts]) -> Iterator[Problem]:
    light = [site.site for site in sites if site.lighter is not None and site.lighter > 0.9]
    dark = [site.site for site in sites if site.lighter is not None and site.lighter < 0.1]
    if light and dark:
        message = (
            f"the foreground is lighter than its surroundings at {', '.join(light)} and darker at {', '.join(dark)}"
        )
        yield Problem("warning", "", "", message, "foreground light at some sites, dark at others")
