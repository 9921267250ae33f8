"""Scores against numbers worked out by hand.

Binary: probabilities of class 1 are .9 .4 .3 .6 .2 for targets 1 1 0 0 0. Predictions 1 0 0 1 0: accuracy
3/5, recalls 2/3 and 1/2, balanced 7/12; of 2 x 3 pairs .9 wins 3 and .4 wins 2: AUC 5/6.

Segmentation, one case of two 2x2 slices and one of one slice, classes 0 1 (rows written one after another):

    a1  P 1 1 0 0   T 1 0 0 0   overlap 1, |P| + |T| = 3
    a2  P 0 0 0 0   T 1 0 0 0   overlap 0, |P| + |T| = 1     case a: dice 2/4, iou 1/3
    b1  P 1 1 0 0   T 1 1 0 0                                case b: dice 1, iou 1
    released: background 4/5, 6/7, 1; foreground 2/3, 0, 1
"""

import math
from pathlib import Path

import numpy as np
import pytest

from harmofl.errors import ShapeError
from harmofl.evaluation.metrics import (
    CASE_METRICS,
    MAIN_METRIC,
    CaseScores,
    Summary,
    classification_cases,
    classification_scores,
    improves,
    segmentation_cases,
    segmentation_scores,
    summarize,
)

MAPS = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=np.uint8).reshape(3, 2, 2)
TRUTH = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=np.uint8).reshape(3, 2, 2)
CASES = ["a", "a", "b"]
EMPTY = np.zeros((1, 2, 2), dtype=np.uint8)


def binary(one: list[float]) -> np.ndarray:
    return np.stack([1 - np.array(one), np.array(one)], axis=1)


def test_binary_classification() -> None:
    scores = classification_scores(binary([0.9, 0.4, 0.3, 0.6, 0.2]), np.array([1, 1, 0, 0, 0]))
    assert scores == pytest.approx({"accuracy": 3 / 5, "balanced_accuracy": 7 / 12, "auc": 5 / 6})


def test_ties_count_half() -> None:
    assert classification_scores(binary([0.5, 0.5]), np.array([0, 1]))["auc"] == 0.5


def test_several_classes_of_which_one_does_not_occur() -> None:
    """Class 2 is predicted once and never true: it has no recall, and no AUC, and counts in neither."""
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.5, 0.4, 0.1]])
    scores = classification_scores(probabilities, np.array([0, 0, 1, 1]))
    # class 0: .6 beats .1 and .5, .2 beats .1 only: 3/4; class 1: .8 beats both, .4 beats both: 1
    assert scores == pytest.approx({"accuracy": 1 / 2, "balanced_accuracy": 1 / 2, "auc": 7 / 8})


@pytest.mark.parametrize("classes", [2, 4])
def test_auc_of_a_single_class_is_undefined(classes: int) -> None:
    scores = classification_scores(np.full((3, classes), 1 / classes), np.zeros(3, dtype=np.int64))
    assert scores["accuracy"] == scores["balanced_accuracy"] == 1
    assert math.isnan(scores["auc"])


def test_auc_of_probabilities_that_are_not_finite_is_undefined() -> None:
    assert math.isnan(classification_scores(binary([math.nan, 0.2]), np.array([0, 1]))["auc"])


@pytest.mark.parametrize("digits", [16, 1], ids=["all different", "many equal"])
def test_against_scikit_learn(digits: int) -> None:
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    rng = np.random.default_rng(0)
    probabilities, targets = rng.dirichlet(np.ones(4), 60).round(digits), rng.integers(4, size=60)
    probabilities[:, 3] = 1 - probabilities[:, :3].sum(axis=1)
    probabilities = probabilities.round(digits)
    scores = classification_scores(probabilities, targets)
    assert scores["auc"] == pytest.approx(roc_auc_score(targets, probabilities, multi_class="ovr"))
    balanced = balanced_accuracy_score(targets, probabilities.argmax(axis=1))
    assert scores["balanced_accuracy"] == pytest.approx(balanced)


def test_segmentation() -> None:
    scores = segmentation_scores(MAPS, TRUTH, CASES, 2)
    assert scores["dice"] == pytest.approx((1 / 2 + 1) / 2)
    assert scores["iou"] == pytest.approx((1 / 3 + 1) / 2)
    released = (4 / 5 + 6 / 7 + 1 + 2 / 3 + 0 + 1) / 6
    assert scores["slice_dice_released"] == pytest.approx(released, abs=1e-5)


def test_cases_in_order_of_appearance() -> None:
    order = [2, 0, 1]
    found = segmentation_cases("dice", MAPS[order], TRUTH[order], [CASES[i] for i in order], 2)
    assert found == CaseScores(["b", "a"], ["", ""], [1.0, 0.5])


def whole(found: CaseScores) -> float:
    groups = {g: [s for s, own in zip(found.scores, found.groups, strict=True) if own == g] for g in found.groups}
    return float(np.mean([np.mean(scores) for scores in groups.values()]))


def test_a_score_is_the_mean_over_groups_of_the_mean_over_cases() -> None:
    for metric, value in segmentation_scores(MAPS, TRUTH, CASES, 2).items():
        assert whole(segmentation_cases(metric, MAPS, TRUTH, CASES, 2)) == pytest.approx(value)
    rng = np.random.default_rng(0)
    probabilities, targets = rng.dirichlet(np.ones(3), 40), rng.integers(3, size=40)
    scores = classification_scores(probabilities, targets)
    for metric in CASE_METRICS["classification"]:
        cases = classification_cases(metric, probabilities, targets, list(map(str, range(40))))
        assert whole(cases) == pytest.approx(scores[metric])


def test_slices_of_a_case_may_be_apart() -> None:
    order = [0, 2, 1]
    scores = segmentation_scores(MAPS[order], TRUTH[order], [CASES[i] for i in order], 2)
    assert scores == pytest.approx(segmentation_scores(MAPS, TRUTH, CASES, 2))


@pytest.mark.parametrize("predicted,true,want", [(EMPTY, EMPTY, 1), (EMPTY, EMPTY + 1, 0), (EMPTY + 1, EMPTY, 0)])
def test_empty_masks(predicted: np.ndarray, true: np.ndarray, want: float) -> None:
    scores = segmentation_scores(predicted, true, ["a"], 2)
    assert scores["dice"] == scores["iou"] == want


def test_the_released_figure_of_all_background() -> None:
    """On a slice with 6 % foreground it scores .48, the foreground Dice 0."""
    true = np.zeros((1, 10, 10), dtype=np.uint8)
    true[0, 0, :6] = 1
    scores = segmentation_scores(np.zeros_like(true), true, ["a"], 2)
    assert scores["dice"] == 0
    assert scores["slice_dice_released"] == pytest.approx(0.4845, abs=1e-4)


def test_several_foreground_classes_are_averaged_within_a_case() -> None:
    """Class 1: overlap 1 of 1 + 2, dice 2/3; class 2: overlap 1 of 2 + 1, 2/3; class 3: neither, 1."""
    predicted = np.array([[[0, 1], [2, 2]]], dtype=np.uint8)
    true = np.array([[[0, 1], [1, 2]]], dtype=np.uint8)
    assert segmentation_scores(predicted, true, ["a"], 4)["dice"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


@pytest.mark.shared("reference/loss_released.npz")
def test_the_released_figure(shared_path: Path) -> None:
    with np.load(shared_path / "reference/loss_released.npz") as stored:
        predicted = stored["logits"].argmax(axis=1).astype(np.uint8)
        true = stored["target"][:, 0].astype(np.uint8)
        scores = segmentation_scores(predicted, true, list("abcde"), 2)
        assert scores["slice_dice_released"] == pytest.approx(float(stored["dice_metric"]), abs=1e-6)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"\(N, K\) and \(N,\) with N >= 1"):
        classification_scores(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))
    with pytest.raises(ShapeError, match=r"\(N, K\) and \(N,\)"):
        classification_scores(np.zeros((3, 2)), np.zeros(2, dtype=np.int64))
    with pytest.raises(ShapeError, match="label maps must be"):
        segmentation_scores(MAPS, TRUTH[:2], CASES, 2)
    with pytest.raises(ShapeError, match="3 slices, 2 names"):
        segmentation_cases("dice", MAPS, TRUTH, CASES[:2], 2)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"A": 0.7, "B": 0.5, "C": 0.8}, Summary(2 / 3, 0.5, "B", math.sqrt(7 / 300))),
        ({"A": math.nan, "B": 0.5}, Summary(0.5, 0.5, "B", math.nan)),
        ({}, Summary(math.nan, math.nan, "", math.nan)),
        ({"A": math.nan}, Summary(math.nan, math.nan, "", math.nan)),
    ],
)
def test_summary_leaves_out_undefined_scores(scores: dict[str, float], expected: Summary) -> None:
    """Mean 2/3 of .5, .7, .8; deviations -1/6, 1/30, 2/15 give a variance of (7/150) / 2."""
    summary = summarize(scores)
    assert summary.worst_site == expected.worst_site
    found, wanted = ((one.mean, one.worst, one.std) for one in (summary, expected))
    assert found == pytest.approx(wanted, nan_ok=True)


def test_main_metrics_exist() -> None:
    assert MAIN_METRIC["segmentation"] in segmentation_scores(MAPS, TRUTH, CASES, 2)
    assert MAIN_METRIC["classification"] in classification_scores(binary([0.4]), np.array([0]))


def test_a_round_is_better_by_its_mean_over_the_sites_that_scored_in_both() -> None:
    """a and b then; now a is lower, b higher; c is new, and d was NaN."""
    best = {"a": {"dice": 0.8}, "b": {"dice": 0.5}, "d": {"dice": None}}
    assert improves({"a": {"dice": 0.7}, "b": {"dice": 0.7}}, best, "dice")
    assert not improves({"a": {"dice": 0.7}, "b": {"dice": 0.6}}, best, "dice")
    assert not improves({"a": {"dice": 0.8}, "c": {"dice": 1.0}, "d": {"dice": 1.0}}, best, "dice")
    assert improves({"b": {"dice": 0.51}}, best, "dice")
    assert not improves({"c": {"dice": 1.0}}, best, "dice")
    assert improves({"a": {"dice": 0.0}}, None, "dice")
    assert not improves({"a": {"dice": math.nan}}, None, "dice")
    assert not improves({"a": {"dice": math.nan}, "b": {"dice": 0.5}}, best, "dice")
