"""Intervals by hand, against SciPy and DeLong's variance, and how often they hold the truth."""

import math

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from harmofl.evaluation.confidence_intervals import Cases, holm, interval, interval_estimate
from harmofl.evaluation.metrics import CaseScores, auc_cases, classification_scores, segmentation_cases


def of_one(scores: list[float], patients: list[int] | None = None, groups: list[str] | None = None) -> CaseScores:
    return CaseScores([str(k) for k in range(len(scores))], groups or [""] * len(scores), scores, patients or [])


def site(scores: list[list[float]] | np.ndarray, patients: list[int] | None = None) -> Cases:
    table = np.array(scores, float)
    return Cases(table, np.full(table.shape[1], ""), np.array(patients or range(table.shape[1])))


def test_all_right_is_not_certain() -> None:
    """Five of five patients: Wilson's lower end is 5 / (5 + t^2) with t of 4 degrees of freedom, 2.776: .394."""
    low, high = interval(of_one([1.0] * 5))
    assert (low, high) == pytest.approx((5 / (5 + 2.7764**2), 1), abs=1e-4)
    assert interval(of_one([0.0] * 5)) == pytest.approx((0, 1 - low))


def test_the_variance_is_over_patients_by_hand() -> None:
    """Patients of 0, 1 and 1/2: mean 1/2, s^2 = 1/4, variance 1/12, so 3 cases of the kind; t of 2 is 4.303."""
    a = 4.3027**2 / 3
    reach = math.sqrt(a / 4 + a**2 / 4) / (1 + a)
    want = (0.5 - reach, 0.5 + reach)
    assert interval(of_one([0, 0, 1, 1, 0.5, 0.5], [0, 0, 1, 1, 2, 2])) == pytest.approx(want, abs=1e-4)
    assert interval(of_one([0, 1, 0.5])) == pytest.approx(want, abs=1e-4)
    assert np.isnan(interval(of_one([0.5, 0.25, 1], [3, 3, 3]))).all()
    assert np.isnan(interval(of_one([math.nan, math.nan]))).all()
    assert interval(of_one([0, 1, math.nan, 0.5])) == pytest.approx(want, abs=1e-4)


def test_more_images_of_the_same_patients_tell_no_more() -> None:
    random = np.random.default_rng(0)
    scores, patients = random.integers(0, 2, 40).astype(float), random.integers(0, 9, 40)
    groups = random.integers(0, 2, 40).astype(str)
    once = interval(of_one(scores.tolist(), patients.tolist(), groups.tolist()))
    many = interval(of_one(scores.tolist() * 10, patients.tolist() * 10, groups.tolist() * 10))
    assert many == pytest.approx(once)
    alone = interval(of_one(scores.tolist() * 10, groups=groups.tolist() * 10))
    assert alone[1] - alone[0] < 0.5 * (once[1] - once[0])


def test_a_class_of_one_patient_varies_as_the_others() -> None:
    """Class x: variance of the mean 1/8 for 2 patients, 1/4 for one; y of one patient adds as much: (1/8 + 1/4) / 4."""
    found = of_one([0.0, 0.5, 0.75], groups=["x", "x", "y"])
    variance = (1 / 16 + 1 / 8) / 4
    score, freedom = 0.5, max(1, (1 / 16 + 1 / 16 + 1 / 4) ** 2 / (2 / 256 + 1 / 16) - 1)
    a = student.ppf(0.975, freedom) ** 2 / (score * (1 - score) / variance)
    reach = math.sqrt(score * (1 - score) * a + a**2 / 4) / (1 + a)
    assert interval(found) == pytest.approx((0.5 - reach, 0.5 + reach))


def test_one_seed_and_one_site_is_students_test() -> None:
    gains = np.random.default_rng(1).normal(0.3, 1, 12)
    found, want = interval_estimate([site([gains.tolist()])]), ttest_1samp(gains, 0)
    assert found.p == pytest.approx(want.pvalue)
    assert found.interval == pytest.approx(tuple(want.confidence_interval(0.95)))
    repeated = interval_estimate([site([np.repeat(gains, 7).tolist()], np.repeat(np.arange(12), 7).tolist())])
    assert repeated.interval == pytest.approx(found.interval)


def test_seeds_alone_are_students_test() -> None:
    """All patients gain the same, by 0, .1 and .5 in three seeds."""
    found = interval_estimate([site([[g] * 6 for g in (0.0, 0.1, 0.5)]), site([[g] * 3 for g in (0.0, 0.1, 0.5)])])
    want = ttest_1samp([0.0, 0.1, 0.5], 0)
    assert found.interval == pytest.approx(tuple(want.confidence_interval(0.95)))


def test_what_seeds_and_patients_both_hold_counts_once() -> None:
    """Gains that only the pair of seed and patient decides: the variance is s^2 / (seeds x patients)."""
    random, found = np.random.default_rng(2), []
    for _ in range(400):
        found.append(interval_estimate([site(random.normal(0, 1, (6, 30)))]).variance)
    assert np.median(found) == pytest.approx(1 / 180, rel=0.25)


def test_a_site_of_one_patient_varies_as_the_others() -> None:
    rest = site([[0.0, 0.2, 0.4, 0.6]])
    alone = site([[0.3]])
    assert interval_estimate([rest]).variance == pytest.approx(0.2 / 3 / 4)
    assert interval_estimate([rest, alone]).variance == pytest.approx((0.2 / 3 / 4 + 0.2 / 3) / 4)
    assert math.isnan(interval_estimate([alone]).variance) and math.isnan(interval_estimate([alone]).p)
    assert all(map(math.isnan, interval_estimate([alone, alone]).interval))


def test_nothing_varies() -> None:
    assert interval_estimate([site([[0.1, 0.1]] * 3)]).interval == pytest.approx((0.1, 0.1))
    assert interval_estimate([site([[0.5, 0.5]] * 3)]).p == 0
    assert interval_estimate([site([[0.0, 0.0]] * 3)]).p == 1
    assert math.isnan(interval_estimate([]).p) and math.isnan(interval_estimate([site(np.zeros((3, 0)))]).variance)


def test_holm_by_hand() -> None:
    """.01 x 3; .03 x 2; .04 is below that; NaN does not count."""
    assert holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize("classes", [2, 3])
def test_shares_of_the_area_come_to_the_area(classes: int) -> None:
    random = np.random.default_rng(3)
    targets = random.integers(classes, size=50)
    probabilities = np.round(random.dirichlet(np.ones(classes), 50), 1)  # with ties
    found = auc_cases(probabilities, targets, [str(k) for k in range(50)])
    means = [
        np.mean([s for s, g in zip(found.scores, found.groups, strict=True) if g == name])
        for name in dict.fromkeys(found.groups)
    ]
    assert np.mean(means) == pytest.approx(classification_scores(probabilities, targets)["auc"])
    low, high = interval(found)
    assert low < np.mean(means) < high


def test_the_area_varies_as_delong_says() -> None:
    """V = var(V10) / m + var(V01) / n, DeLong et al. 1988, pair by pair."""
    random = np.random.default_rng(4)
    targets = np.repeat([0, 1], [30, 20])
    likely = random.normal(targets * 1.0, 1)
    wins = (likely[targets == 1][:, None] > likely[targets == 0]).astype(float)
    variance = wins.mean(1).var(ddof=1) / 20 + wins.mean(0).var(ddof=1) / 30
    area = wins.mean()
    shares = np.repeat([1 / 30, 1 / 20], [30, 20])
    freedom = (shares**2).sum() ** 2 / (shares**4).sum() - 1
    a = student.ppf(0.975, freedom) ** 2 * variance / (area * (1 - area))
    middle, reach = (area + a / 2) / (1 + a), math.sqrt(area * (1 - area) * a + a**2 / 4) / (1 + a)
    probabilities = np.stack([-likely, likely], axis=1)
    found = interval(auc_cases(probabilities, targets, [str(k) for k in range(50)]))
    assert found == pytest.approx((middle - reach, middle + reach))


def test_a_difference_of_areas_varies_as_the_areas() -> None:
    """A site's variance with `doubled` is four times that of the mean over its groups."""
    scores, groups = np.random.default_rng(5).random((1, 8)), np.array(["1", "not 1"] * 4)
    half, whole = (interval_estimate([Cases(scores, groups, np.arange(8), doubled)]) for doubled in (False, True))
    assert whole.variance == pytest.approx(4 * half.variance)


def test_the_area_of_one_class_has_no_interval() -> None:
    found = auc_cases(np.array([[0.1, 0.9], [0.4, 0.6]]), np.array([1, 1]), ["a", "b"])
    assert np.isnan(interval(found)).all()


def test_slices_and_volumes_are_their_patients() -> None:
    maps = np.zeros((4, 2, 2), int)
    cases, patients = ["v1", "v1", "v2", "v3"], ["p", "p", "p", "q"]
    assert segmentation_cases("dice", maps, maps, cases, 2, patients).patients == [0, 0, 1]
    assert segmentation_cases("slice_dice_released", maps, maps, cases, 2, patients).patients == [0, 0, 0, 1]
    assert segmentation_cases("dice", maps, maps, cases, 2).patients == [0, 1, 2]


def test_intervals_over_patients_hold_the_truth_and_those_over_images_do_not() -> None:
    """400 times 15 patients of 30 images, accuracy .8; a patient's own from Beta(4, 1)."""
    random, hits = np.random.default_rng(5), np.zeros(2)
    patients = np.repeat(np.arange(15), 30)
    for _ in range(400):
        scores = (random.random(450) < random.beta(4, 1, 15)[patients]).astype(float).tolist()
        for k, owner in enumerate((patients.tolist(), None)):
            low, high = interval(of_one(scores, owner))
            hits[k] += low <= 0.8 <= high
    assert 0.92 <= hits[0] / 400 <= 0.98
    assert hits[1] / 400 < 0.7


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_of_differences_hold_the_truth(seeds: int) -> None:
    random, hits = np.random.default_rng(6), 0
    for _ in range(400):
        common = random.normal(0, 0.2, (seeds, 1))
        sites = [site(common + random.normal(0, 1, 12) + random.normal(0, 0.5, (seeds, 12))) for _ in range(4)]
        low, high = interval_estimate(sites).interval
        hits += low <= 0 <= high
    assert 0.92 <= hits / 400 <= 0.98
