"""Scores of a whole split, from the predictions of all its images, and their summary over sites.

All scores lie in [0, 1] and higher is better; NaN means undefined.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harmofl.errors import ShapeError
from harmofl.types import Task

MAIN_METRIC: Final[dict[Task, str]] = {"classification": "balanced_accuracy", "segmentation": "dice"}

CASE_METRICS: Final[dict[Task, tuple[str, ...]]] = {
    "classification": ("balanced_accuracy", "accuracy"),
    "segmentation": ("dice", "iou", "slice_dice_released"),
}
"""Scores that are means over single cases, so that methods can be compared case by case."""

FloatArray = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]
LabelMaps = Labels | Sequence[Labels]
"""Label maps (N, H, W) of images, or those of volumes, which may differ in shape."""


@dataclass(frozen=True)
class Summary:
    """Summary of a score over the sites; sites whose score is NaN are left out, and without sites all is NaN or ""."""

    mean: float  # all sites have equal weights
    worst: float  # the lowest
    worst_site: str  # the first of equals
    std: float  # with n - 1 as divisor; NaN below two sites


def improves(
    now: Mapping[str, Mapping[str, float | None]], best: Mapping[str, Mapping[str, float | None]] | None, metric: str
) -> bool:
    """Return True if a round's validation scores are better than those of the best round so far.

    They are better if the mean over the sites with a score in both rounds is higher; None is a NaN score. Without such
    a site they are not. The first round with a score is better than none.
    """
    known = {site for site, scores in now.items() if _known(scores[metric])}
    if best is None:
        return bool(known)
    both = sorted(site for site in known & best.keys() if _known(best[site][metric]))
    then = [best[site][metric] for site in both]
    here = [now[site][metric] for site in both]
    return bool(both) and bool(np.mean(np.array(here, float)) > np.mean(np.array(then, float)))


def _known(score: float | None) -> bool:
    return score is not None and not math.isnan(score)


def summarize(scores: Mapping[str, float]) -> Summary:
    """Summarize one score, higher is better, over the sites; see `Summary`."""
    known = {site: float(score) for site, score in scores.items() if not math.isnan(score)}
    if not known:
        return Summary(math.nan, math.nan, "", math.nan)
    worst = min(known, key=lambda site: known[site])
    values = np.array(list(known.values()))
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Summary(float(values.mean()), known[worst], worst, std)


def classification_scores(probabilities: FloatArray, targets: Labels) -> dict[str, float]:
    """Return accuracy, balanced accuracy and area under the ROC curve.

    The predicted class is the most probable, the first of equals. Balanced accuracy is the mean recall of
    the classes that occur in `targets`. `auc` is the probability that a random image of a class gets a
    higher probability of it than a random image of another class, where ties count half: for two classes
    that of class 1, for more the mean over the classes that occur. It is NaN if only one class occurs or a
    probability is not finite.

    Args:
        probabilities: (N, K), N >= 1, K >= 2.
        targets: (N,) in [0, K).

    Raises:
        ShapeError: if the shapes do not fit each other or there is no image.
    """
    if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1] or not len(targets):
        got = f"{probabilities.shape} and {targets.shape}"
        raise ShapeError(f"probabilities and targets must be (N, K) and (N,) with N >= 1, got {got}")
    correct = probabilities.argmax(axis=1) == targets
    recalls = [correct[targets == k].mean() for k in np.unique(targets)]
    accuracy, balanced = float(correct.mean()), float(np.mean(recalls))
    return {"accuracy": accuracy, "balanced_accuracy": balanced, "auc": _auc(probabilities, targets)}


def _auc(probabilities: FloatArray, targets: Labels) -> float:
    present = np.unique(targets)
    if len(present) < 2 or not np.isfinite(probabilities).all():
        return math.nan
    classes = present if probabilities.shape[1] > 2 else [1]
    return float(np.mean([_auc_of(probabilities[:, k], targets == k) for k in classes]))


def _auc_of(scores: FloatArray, positive: NDArray[np.bool_]) -> float:
    """Return (R - p (p + 1) / 2) / (p q), R the rank sum of the p positives among p + q; Mann and Whitney 1947."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[place]  # equal scores share the mean of their ranks
    p = int(positive.sum())
    return float(ranks[positive].sum() - p * (p + 1) / 2) / (p * (len(scores) - p))


def segmentation_scores(
    predictions: LabelMaps, targets: LabelMaps, cases: Sequence[str], classes: int
) -> dict[str, float]:
    """Return the overlap of predicted and true label maps.

    With P and T the pixels of a class in all slices of one case,

        dice = 2 |P & T| / (|P| + |T|),    iou = |P & T| / (|P| + |T| - |P & T|),

    both 1 if P and T are empty, 0 if one of them is; the mean is over the foreground classes 1..K-1 of a
    case, then over cases. `slice_dice_released` is the score of HarmoFL's released code, for comparison
    only: 2 |P & T| / (|P| + |T| + 1e-5) of single slices, where an empty class scores 0, over all classes
    INCLUDING background, which raises the score of small structures.

    Args:
        predictions: (N, H, W) label maps, N >= 1, or a list of maps (D, H, W) of N volumes, which have no
            `slice_dice_released`.
        targets: label maps in [0, K) of the same shapes.
        cases: N names; slices with the same name belong to one patient.
        classes: K >= 2, background included.

    Raises:
        ShapeError: if the shapes do not fit each other, or there is no slice or no foreground class.
    """
    overlap, total = _counts(predictions, targets, cases, classes)
    case_overlap, case_total = (_pool(counts, cases)[:, 1:] for counts in (overlap, total))
    found = {
        "dice": float(_ratio(2 * case_overlap, case_total).mean()),
        "iou": float(_ratio(case_overlap, case_total - case_overlap).mean()),
    }
    if isinstance(targets, np.ndarray):
        found["slice_dice_released"] = float((2 * overlap / (total + 1e-5)).mean())
    return found


@dataclass(frozen=True)
class CaseScores:
    """Score by case; the overall score is the mean over the groups of the mean over the cases of each.

    `doubled` is True if a change in one group changes the score by as much as the group's mean, not by its share; for
    `auc_cases`.
    """

    cases: list[str]  # names
    groups: list[str]  # the class of each case for balanced accuracy, the same for all in other scores
    scores: list[float]
    patients: list[int] = field(default_factory=list)  # numbers from 0; by default one for each name
    doubled: bool = False

    def __post_init__(self) -> None:
        if not self.patients:
            object.__setattr__(self, "patients", numbered(self.cases))


def numbered(names: Sequence[str]) -> list[int]:
    """Return the number of each name, in order of first appearance, from 0."""
    number = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return [number[name] for name in names]


def classification_cases(
    metric: str, probabilities: FloatArray, targets: Labels, cases: Sequence[str], patients: Sequence[str] = ()
) -> CaseScores:
    """Return 1 or 0 by image, right or wrong, grouped by class for `balanced_accuracy`; for `auc` see `auc_cases`.

    `patients` names the patient of each image; by default each image is from another patient.
    """
    if metric == "auc":
        return auc_cases(probabilities, targets, cases, patients)
    correct = (probabilities.argmax(axis=1) == targets).astype(float).tolist()
    groups = [str(target) for target in targets.tolist()] if metric == "balanced_accuracy" else [""] * len(targets)
    return CaseScores(list(cases), groups, correct, numbered(patients or cases))


def auc_cases(
    probabilities: FloatArray, targets: Labels, cases: Sequence[str], patients: Sequence[str] = ()
) -> CaseScores:
    """Return, for every class and image, the share of the images on the other side that are ranked correctly to it.

    The mean over the images of the class is its area under the curve, and so is the mean over the others (DeLong et
    al., Biometrics 44, 1988): a case counts twice in the area's variance.
    """
    entries: list[tuple[str, str, float, str]] = []
    classes = [1] if probabilities.shape[1] == 2 else list(range(probabilities.shape[1]))
    for k in classes:
        likely, positive = probabilities[:, k], targets == k
        if positive.all() or not positive.any():
            continue
        share = np.empty(len(likely))
        for side, sign in ((positive, 1), (~positive, -1)):
            others = np.sort(sign * likely[~side])
            lower, equal = (np.searchsorted(others, sign * likely[side], where) for where in ("left", "right"))
            share[side] = (lower + equal) / 2 / len(others)
        groups = np.where(positive, f"{k}", f"not {k}").tolist()
        entries += zip(cases, groups, share.tolist(), patients or cases, strict=True)
    return CaseScores(
        [case for case, _, _, _ in entries],
        [group for _, group, _, _ in entries],
        [score for _, _, score, _ in entries],
        numbered([patient for _, _, _, patient in entries]),
        doubled=True,
    )


def segmentation_cases(
    metric: str,
    predictions: LabelMaps,
    targets: LabelMaps,
    cases: Sequence[str],
    classes: int,
    patients: Sequence[str] = (),
) -> CaseScores:
    """Return `dice` or `iou` of each case, or `slice_dice_released` of each slice; see `segmentation_scores`."""
    overlap, total = _counts(predictions, targets, cases, classes)
    if metric == "slice_dice_released":
        scores = (2 * overlap / (total + 1e-5)).mean(axis=1).tolist()
        return CaseScores(list(cases), [""] * len(cases), scores, numbered(patients or cases))
    owner = dict(zip(cases, patients or cases, strict=True))
    overlap, total = (_pool(counts, cases)[:, 1:] for counts in (overlap, total))
    score = _ratio(2 * overlap, total) if metric == "dice" else _ratio(overlap, total - overlap)
    names = list(dict.fromkeys(cases))
    return CaseScores(names, [""] * len(names), score.mean(axis=1).tolist(), numbered([owner[n] for n in names]))


def _counts(
    predictions: LabelMaps, targets: LabelMaps, cases: Sequence[str], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return |P & T| and |P| + |T| of every slice, or volume, and class, (N, K) each."""
    if not isinstance(predictions, np.ndarray) or not isinstance(targets, np.ndarray):
        each = [_counts(p, t, [case] * len(t), classes) for p, t, case in zip(predictions, targets, cases, strict=True)]
        overlaps, totals = ([found[k].sum(axis=0) for found in each] for k in (0, 1))
        return np.stack(overlaps), np.stack(totals)
    if predictions.ndim != 3 or predictions.shape != targets.shape or not len(targets) or classes < 2:
        got = f"{predictions.shape}, {targets.shape} and {classes} classes"
        raise ShapeError(f"label maps must be two (N, H, W), N >= 1, of at least 2 classes, got {got}")
    if len(cases) != len(targets):
        raise ShapeError(f"every slice needs the name of its case, got {len(targets)} slices, {len(cases)} names")
    overlap, total = [], []
    for k in range(classes):
        p, t = predictions == k, targets == k
        overlap.append((p & t).sum(axis=(1, 2)))
        total.append(p.sum(axis=(1, 2)) + t.sum(axis=(1, 2)))
    return np.stack(overlap, axis=1), np.stack(total, axis=1)


def _pool(counts: NDArray[np.int64], cases: Sequence[str]) -> NDArray[np.int64]:
    """Sum the rows of each case: (N, K) -> (cases, K), in order of first appearance."""
    position = {case: index for index, case in enumerate(dict.fromkeys(cases))}
    pooled = np.zeros((len(position), counts.shape[1]), dtype=np.int64)
    np.add.at(pooled, [position[case] for case in cases], counts)
    return pooled


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return part / whole, and 1 where both are 0: nothing to find and nothing found."""
    return np.where(whole > 0, part / np.maximum(whole, 1), 1.0)
