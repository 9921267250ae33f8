"""Confidence intervals of scores and of differences between methods: 95 %, over patients and over seeds.

Images of one patient are alike, so the random units are patients, not images; initial weights and batches depend on
the seed, so seeds are random units too. The variance of a mean over both is that over patients (cluster-robust, with
the leverage correction of Bell and McCaffrey, Survey Methodology 28, 2002) plus that over seeds, minus the part that
both count (Cameron, Gelbach and Miller, J. Business & Economic Statistics 29, 2011); the quantile is Student's, with
the degrees of freedom of Satterthwaite (Biometrics Bulletin 2, 1946). `benchmarks/coverage.py` measures the coverage.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harmofl.evaluation.metrics import CaseScores

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cases:
    """Scores of one site's test cases, with the group and patient of each, see `metrics.CaseScores`."""

    scores: Floats  # (seeds, cases)
    groups: NDArray[np.str_]  # (cases,)
    patients: NDArray[np.int64]  # (cases,)
    doubled: bool = False


@dataclass(frozen=True)
class Estimate:
    """Estimate of a mean over sites of the mean over groups of the mean over cases, and over seeds."""

    mean: float
    variance: float  # of the mean under new seeds and patients; NaN if it cannot be estimated
    freedom: float  # degrees of freedom of the variance

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval, mean -+ t sqrt(variance); NaN if the variance is NaN."""
        reach = _quantile(self.freedom) * math.sqrt(self.variance)
        return self.mean - reach, self.mean + reach

    @property
    def p(self) -> float:
        """Two-sided p-value of a mean of 0; NaN if the variance is NaN."""
        from scipy.special import stdtr  # slow to import

        if self.variance == 0:
            return float(self.mean == 0)
        return float(2 * stdtr(self.freedom, -abs(self.mean) / math.sqrt(self.variance)))


def interval(cases: CaseScores) -> tuple[float, float]:
    """Return the 95 % interval of a score in [0, 1] over the patients of one site.

    Wilson's interval (J. American Statistical Association 22, 1927), which stays within [0, 1], for the number of
    independent cases with the score's variance; if all cases score alike, for the number of patients.
    Cases whose score is NaN are left out. Returns the lowest and the highest value; NaN for a single patient.
    """
    scores = np.asarray(cases.scores, dtype=float)
    known = ~np.isnan(scores)
    if not known.any():
        return math.nan, math.nan
    groups, patients = np.asarray(cases.groups)[known], np.asarray(cases.patients)[known]
    spread = _spread(scores[None, known], groups, patients, cases.doubled)
    if math.isnan(spread.variance):
        return math.nan, math.nan
    score = float(spread.means[0])
    count = score * (1 - score) / spread.variance if spread.variance > 0 else spread.patients
    a = _quantile(spread.freedom) ** 2 / max(count, 1)
    reach = math.sqrt(max(score * (1 - score), 0) * a + a**2 / 4)
    return max((score + a / 2 - reach) / (1 + a), 0.0), min((score + a / 2 + reach) / (1 + a), 1.0)


def interval_estimate(sites: Sequence[Cases]) -> Estimate:
    """Estimate the mean over sites, groups and cases, of scores or of differences of scores.

    All sites have the same seeds. With one seed the variance is that over patients alone and does not cover other
    seeds. A site with one patient gets the average variance of one patient at the other sites.
    """
    if not sites or not all(site.scores.size for site in sites):
        return Estimate(math.nan, math.nan, 1.0)
    spreads = [_spread(site.scores, site.groups, site.patients, site.doubled) for site in sites]
    by_seed = np.mean([spread.means for spread in spreads], axis=0)
    share, count = 1 / len(sites) ** 2, len(by_seed)
    of_one = [spread.variance * spread.patients for spread in spreads if not math.isnan(spread.variance)]
    if not of_one:
        return Estimate(float(by_seed.mean()), math.nan, 1.0)
    variances = [float(np.mean(of_one)) if math.isnan(spread.variance) else spread.variance for spread in spreads]
    of_patients = share * sum(variances)
    of_seeds = float(np.var(by_seed, ddof=1)) / count if count > 1 else 0.0
    both = share * sum(spread.interaction for spread in spreads)
    squares = sum((share * v) ** 2 / spread.freedom for v, spread in zip(variances, spreads, strict=True))
    squares += of_seeds**2 / (count - 1) if count > 1 else 0
    freedom = (of_patients + of_seeds) ** 2 / squares if squares else 1.0
    return Estimate(float(by_seed.mean()), max(of_patients + of_seeds - both, of_patients), max(freedom, 1.0))


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm, Scandinavian J. Statistics 6, 1979); NaN stays and does not count."""
    known = sorted((value, index) for index, value in enumerate(p) if not math.isnan(value))
    corrected, highest = [math.nan] * len(p), 0.0
    for rank, (value, index) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        corrected[index] = highest
    return corrected


@dataclass(frozen=True)
class _Spread:
    """Variation of one site's mean over its patients."""

    means: Floats  # (seeds,) mean over the groups of the mean over the cases
    variance: float  # of their mean over the seeds under new patients
    interaction: float  # the part of `variance` that the variance over seeds also contains
    freedom: float  # degrees of freedom
    patients: float  # number of patients of equal weight with the same variance


def _spread(scores: Floats, groups: NDArray[np.str_], patients: NDArray[np.int64], doubled: bool = False) -> _Spread:
    """Return the spread of (seeds, cases) scores; a group of one patient gets the other groups' average variance.

    `doubled` is True for scores that each group gives in full, see `harmofl.evaluation.metrics.auc_cases`.
    """
    names, group = np.unique(groups, return_inverse=True)
    owners, owner = np.unique(patients, return_inverse=True)
    weight = (1 + doubled) / len(names)
    means, pulls = np.zeros(len(scores)), np.zeros((len(scores), len(owners)))
    shares, lone, of_one = np.zeros(len(owners)), 0, []
    for k in range(len(names)):
        chosen = group == k
        share = np.bincount(owner[chosen], minlength=len(owners)) / chosen.sum()
        mean = scores[:, chosen].mean(axis=1)
        means, shares = means + mean / len(names), shares + weight * share
        if share.max() == 1:
            lone += 1
            continue
        away = scores[:, chosen] - mean[:, None]
        pull = np.stack([np.bincount(owner[chosen], row, minlength=len(owners)) for row in away]) / chosen.sum()
        pull /= np.sqrt(1 - share)
        pulls += weight * pull
        of_one.append((pull.mean(axis=0) ** 2).sum() / (share**2).sum())
    if not of_one:
        return _Spread(means, math.nan, 0.0, 1.0, 1.0)
    seeds = len(scores)
    unlike = float(((pulls - pulls.mean(axis=0)) ** 2).sum()) / (seeds * max(seeds - 1, 1))
    return _Spread(
        means,
        float((pulls.mean(axis=0) ** 2).sum() + lone * weight**2 * np.mean(of_one)),
        unlike,
        max(1.0, float((shares**2).sum() ** 2 / (shares**4).sum()) - 1),
        float(shares.sum() ** 2 / (shares**2).sum()),
    )


def _quantile(freedom: float) -> float:
    from scipy.special import stdtrit  # slow to import

    return float(stdtrit(freedom, 0.975))
