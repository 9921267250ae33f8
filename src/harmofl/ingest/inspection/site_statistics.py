"""Shareable statistics of a site: counts, sizes and distributions, without images and names of files or patients.

A site writes them as JSON; a coordinator collects the files of all sites and compares them (see `between_sites`).
"""

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from harmofl.data.checks.problem import Problem, Severity
from harmofl.data.layout.site_files import SiteFiles
from harmofl.data.manifest import SPLITS, FederationInfo
from harmofl.errors import DataError
from harmofl.ingest.inspection.record_pixels import CONTRAST, Inspected, Sums
from harmofl.types import Task


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SplitFacts(_Frozen):
    """Counts of one split of a site; `classes` is the number of images in which each class occurs."""

    images: int
    patients: int
    cases: int
    classes: dict[str, int]


class Finding(_Frozen):
    """The number of problems of one kind."""

    severity: Severity
    kind: str
    count: int


class SiteFacts(_Frozen):
    """The statistics of one site.

    Args:
        site: the site's name.
        task: "classification" or "segmentation".
        classes: class names in the order of their index.
        splits: counts of each split.
        kinds: number of files of each kind.
        sizes: number of images of each stored height and width.
        resized: True if images are brought to one size when they are read, or are volumes that are kept whole.
        axes: number of volumes with each orientation of the stored axes.
        spacing: smallest, median and largest distance of voxels along x, y and z, in millimetres.
        shares: share of the pixels (or images) of each class.
        foreground: 5, 50 and 95 % quantiles of the share of an image that is foreground.
        lighter: share of the images with a clear contrast whose foreground is the lighter part.
        histogram: (C, 64) share of the pixels in each of 64 equal parts of the range of values.
        profile: (C, 17) mean radial amplitude profile, see `harmofl.spectral.radial_profile`.
        findings: number of errors and warnings of each kind.
        harmofl: the version of HarmoFL that wrote the file.
    """

    site: str
    task: Task
    classes: tuple[str, ...]
    splits: dict[str, SplitFacts]
    kinds: dict[str, int]
    sizes: dict[str, int]
    resized: bool = False
    axes: dict[str, int] = Field(default_factory=dict)
    spacing: tuple[tuple[float, ...], ...] = ()
    shares: dict[str, float]
    foreground: tuple[float, float, float] | None = None
    lighter: float | None = None
    histogram: tuple[tuple[float, ...], ...]
    profile: tuple[tuple[float, ...], ...]
    findings: tuple[Finding, ...] = ()
    harmofl: str = Field(default_factory=lambda: version("harmofl"))

    @field_validator("histogram", "profile")
    @classmethod
    def _rectangular(cls, rows: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        if len({len(row) for row in rows}) > 1:
            raise ValueError("channels must have equally many numbers")
        return rows


def facts_of(
    site: SiteFiles, info: FederationInfo, seen: Sequence[Inspected], sums: Sums | None, problems: Sequence[Problem]
) -> SiteFacts:
    """Compute a site's statistics from its inspected records."""
    spacings = np.array([one.geometry.spacing for one in seen if one.geometry])
    clear = [one.lighter for one in seen if one.lighter is not None and abs(one.lighter) > CONTRAST]
    shares = np.array([one.foreground for one in seen])
    counts: Counter[tuple[Severity, str]] = Counter()
    for problem in problems:
        if problem.site == site.name:
            counts[problem.severity, problem.kind] += problem.count
    return SiteFacts(
        site=site.name,
        task=info.task,
        classes=info.classes,
        splits={split: _split_facts(info, [one for one in seen if one.record.split == split]) for split in SPLITS},
        kinds=dict(Counter(one.kind for one in seen)),
        sizes=dict(Counter(f"{one.size[0]}x{one.size[1]}" for one in seen)),
        resized=info.size is not None or info.volumes is not None,
        axes=dict(Counter(one.geometry.axes for one in seen if one.geometry)),
        spacing=_rows(np.quantile(spacings, (0, 0.5, 1), axis=0).T) if len(spacings) else (),
        shares=_shares(info, sums),
        foreground=tuple(np.quantile(shares, (0.05, 0.5, 0.95)).tolist())
        if len(shares) and info.task == "segmentation"
        else None,
        lighter=float(np.mean([value > 0 for value in clear])) if clear else None,
        histogram=_rows(sums.histogram / np.maximum(sums.histogram.sum(axis=1, keepdims=True), 1)) if sums else (),
        profile=_rows(sums.profile / max(sums.images, 1)) if sums else (),
        findings=tuple(Finding(severity=s, kind=kind, count=n) for (s, kind), n in sorted(counts.items())),
    )


def _rows(array: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in array)


def _shares(info: FederationInfo, sums: Sums | None) -> dict[str, float]:
    total = max(1, int(sums.pixels.sum())) if sums else 1
    counts = sums.pixels.tolist() if sums else [0] * len(info.classes)
    return {name: count / total for name, count in zip(info.classes, counts, strict=True)}


def _split_facts(info: FederationInfo, seen: Sequence[Inspected]) -> SplitFacts:
    return SplitFacts(
        images=sum(one.slices for one in seen),
        patients=len({one.record.patient for one in seen}),
        cases=len({one.record.case for one in seen}),
        classes={name: sum(k in one.classes for one in seen) for k, name in enumerate(info.classes)},
    )


def read_facts(path: Path) -> SiteFacts:
    """Read a site's statistics from a JSON file.

    Raises:
        DataError: if the file was not written by `harmofl data check --pages`.
    """
    try:
        return SiteFacts.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        fix = "give the JSON files that `harmofl data check --pages` writes"
        raise DataError(f"{path}: must hold the statistics of a site, but {where}: {first['msg']}; {fix}") from None
