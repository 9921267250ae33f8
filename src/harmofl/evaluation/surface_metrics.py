"""Scores of a predicted structure: 95 % Hausdorff distance and surface Dice between its surface and the true one, Dice.

Distances are computed by MONAI. Unlike the scores of `harmofl.evaluation.metrics`, a lower distance is better.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harmofl.errors import ShapeError
from harmofl.utils.lazy_imports import optional

Outcome = Literal["found", "missed", "spurious", "absent"]
Labels = NDArray[np.integer[Any]]
PERCENTILE = 95.0


@dataclass(frozen=True)
class SurfaceScore:
    """Scores of one structure in one image or volume.

    Args:
        outcome: "found" if truth and prediction have the structure, "missed" if the truth alone has it, "spurious" if
            the prediction alone has it, "absent" if neither has it.
        hausdorff95: the larger of the 95th percentiles of the distances from each surface to the other, >= 0, in the
            units of the spacing; infinite if missed or spurious, NaN if absent.
        surface_dice: the share of both surfaces that lies within the tolerance of the other one, in [0, 1]; 0 if
            missed or spurious, NaN if absent.
        dice: 2 |P & T| / (|P| + |T|) over the pixels or voxels, in [0, 1]; 0 if missed or spurious, NaN if absent.
    """

    outcome: Outcome
    hausdorff95: float
    surface_dice: float
    dice: float


def monai_metrics() -> Any:
    """Return the module monai.metrics; raise ConfigError if MONAI is not installed."""
    return optional("monai.metrics", "the surface scores of --surface", "monai")


def surface_scores(
    predicted: Labels, true: Labels, classes: int, spacing: Sequence[float], tolerance: float
) -> list[SurfaceScore]:
    """Return the surface scores of the structures 1..classes-1.

    Distances are between the centres of the outermost pixels or voxels of each structure; a structure ends where the
    image ends. For surface Dice (Nikolov et al., J. Medical Internet Research 23, 2021), every element of a
    surface counts by its area, in an image by its length, so that thick slices get no smaller share than thin ones.

    Args:
        predicted: (H, W) or (S, H, W) label map; a volume of one slice is measured as an image.
        true: label map of the same shape.
        classes: K >= 2, background included.
        spacing: distance between pixels or voxels along each axis, > 0.
        tolerance: largest distance that surface Dice accepts, >= 0, in the units of the spacing.

    Raises:
        ShapeError: if the shapes do not fit each other.
        ConfigError: if MONAI is not installed.
    """
    if predicted.shape != true.shape or predicted.ndim not in (2, 3) or len(spacing) != true.ndim:
        got = f"{predicted.shape}, {true.shape} and {len(spacing)} spacings"
        raise ShapeError(f"label maps must be two (H, W) or (S, H, W) with a spacing per axis, got {got}")
    if true.ndim == 3 and len(true) == 1:
        return surface_scores(predicted[0], true[0], classes, spacing[1:], tolerance)
    return [_score(predicted == k, true == k, spacing, tolerance) for k in range(1, classes)]


def _score(
    predicted: NDArray[np.bool_], true: NDArray[np.bool_], spacing: Sequence[float], tolerance: float
) -> SurfaceScore:
    """Score one structure; MONAI is asked only where both have it, since it warns about empty structures."""
    if not predicted.any() and not true.any():
        return SurfaceScore("absent", math.nan, math.nan, math.nan)
    if not predicted.any() or not true.any():
        return SurfaceScore("missed" if true.any() else "spurious", math.inf, 0.0, 0.0)
    import torch

    masks = [torch.from_numpy(mask)[None, None] for mask in (predicted, true)]  # (1, 1, ...)
    chosen = {"include_background": True, "spacing": [float(step) for step in spacing]}
    monai = monai_metrics()
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # MONAI's, of its own calls
        distance = monai.compute_hausdorff_distance(*masks, percentile=PERCENTILE, **chosen)
        surface = monai.compute_surface_dice(*masks, class_thresholds=[tolerance], use_subvoxels=True, **chosen)
    dice = 2 * np.count_nonzero(predicted & true) / (np.count_nonzero(predicted) + np.count_nonzero(true))
    return SurfaceScore("found", float(distance), float(surface), dice)
