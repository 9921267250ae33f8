"""Surface scores of a site by structure: means with 95 % intervals over patients, and counts of what is left out."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harmofl.evaluation.confidence_intervals import Cases, interval, interval_estimate
from harmofl.evaluation.metrics import CaseScores, numbered
from harmofl.evaluation.surface_metrics import SurfaceScore
from harmofl.utils.grouping import grouped


@dataclass(frozen=True)
class StructureScore:
    """Surface scores of one structure in one file, with the file's case and patient, in "mm" or "pixels"."""

    case: str
    patient: str
    image: str  # path of the file below the site's folder
    structure: str  # name of the class
    unit: str
    score: SurfaceScore


@dataclass(frozen=True)
class StructureSummary:
    """Surface scores of one structure over the files of a site that have one unit.

    The mean distance is over the files in which the structure was found; a missed or spurious structure has an
    infinite distance, so it is only counted. The means of Dice and surface Dice include these as 0. Files in which the
    structure is absent are only counted. Means without a file and intervals over a single patient are NaN.
    """

    structure: str
    unit: str
    files: int
    patients: int
    hausdorff95: float
    hausdorff95_interval: tuple[float, float]
    surface_dice: float
    surface_dice_interval: tuple[float, float]
    dice: float
    dice_interval: tuple[float, float]
    missed: int
    spurious: int
    absent: int


def summaries(scores: Sequence[StructureScore]) -> list[StructureSummary]:
    """Return a summary for each structure and unit, in order of first appearance."""
    return [_summary(alike) for alike in grouped(scores, lambda one: (one.structure, one.unit)).values()]


def _summary(scores: Sequence[StructureScore]) -> StructureSummary:
    outcomes = Counter(one.score.outcome for one in scores)
    found = [one for one in scores if one.score.outcome == "found"]
    known = [one for one in scores if one.score.outcome != "absent"]
    distance, reach = _distance(found)
    surface_dice, surface_dice_interval = _overlap(known, [one.score.surface_dice for one in known])
    dice, dice_interval = _overlap(known, [one.score.dice for one in known])
    return StructureSummary(
        structure=scores[0].structure,
        unit=scores[0].unit,
        files=len(scores),
        patients=len({one.patient for one in scores}),
        hausdorff95=distance,
        hausdorff95_interval=reach,
        surface_dice=surface_dice,
        surface_dice_interval=surface_dice_interval,
        dice=dice,
        dice_interval=dice_interval,
        missed=outcomes["missed"],
        spurious=outcomes["spurious"],
        absent=outcomes["absent"],
    )


def _overlap(known: Sequence[StructureScore], values: list[float]) -> tuple[float, tuple[float, float]]:
    """Return the mean of values in [0, 1] and its interval."""
    patients = numbered([one.patient for one in known])
    of_cases = CaseScores([one.case for one in known], [""] * len(known), values, patients)
    return float(np.mean(values)) if values else math.nan, interval(of_cases)


def _distance(found: Sequence[StructureScore]) -> tuple[float, tuple[float, float]]:
    """Return the mean distance and its interval, which Student's quantile gives, cut at 0."""
    distances = np.array([[one.score.hausdorff95 for one in found]])
    groups, patients = np.array([""] * len(found)), np.array(numbered([one.patient for one in found]), dtype=np.int64)
    estimate = interval_estimate([Cases(distances, groups, patients)])
    low, high = estimate.interval
    return estimate.mean, (low if math.isnan(low) else max(low, 0.0), high)
