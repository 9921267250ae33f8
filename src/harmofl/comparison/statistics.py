"""Is one method better than another, and by more than seeds and test cases vary?"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harmofl.comparison.outcome import CaseTable, Outcome

RESAMPLES = 2000


@dataclass(frozen=True)
class Difference:
    """How much better a method is than the baseline, in the mean over the sites.

    Args:
        mean: over the seeds that both have.
        low: of the 95 % interval when seeds and the test cases of each site are drawn again with replacement.
        high: of the same; NaN, as `low`, where there is nothing to draw from.
        better: in how many seeds it is better.
        seeds: how many both have.
    """

    mean: float
    low: float
    high: float
    better: int
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def difference(method: Outcome, baseline: Outcome, seed: int = 0) -> Difference | None:
    """The paired difference: the same seeds, the same test cases; None where the two share no seed.

    One number is the mean over sites, of the mean over groups (classes, for balanced accuracy), of the mean over cases.
    Cases are drawn within site and group, so that no class vanishes. The bootstrap is scipy's, percentile method; with
    few seeds the interval is somewhat too narrow (Efron and Tibshirani 1993).
    """
    common = [s for s in method.seeds if s in baseline.seeds]
    if not common or method.sites != baseline.sites:
        return None
    rows = [[outcome.seeds.index(s) for s in common] for outcome in (method, baseline)]
    gains = [
        (group, weight / len(method.sites))
        for site in method.sites
        for group, weight in _groups(method.cases[site], baseline.cases[site], *rows)
    ]
    by_seed = sum(weight * gain.mean(axis=1) for gain, weight in gains)
    low, high = _interval(gains, len(common), seed)
    return Difference(float(np.mean(by_seed)), low, high, int(np.sum(by_seed > 0)), len(common))


def at_site(outcome: Outcome, site: str) -> Outcome:
    """The same, of one of its sites alone."""
    column = outcome.sites.index(site)
    return replace(outcome, sites=(site,), test=outcome.test[:, [column]], cases={site: outcome.cases[site]})


Gains = list[tuple[NDArray[np.float64], float]]


def _groups(a: CaseTable, b: CaseTable, rows_a: list[int], rows_b: list[int]) -> Gains:
    """(seeds, cases) of every group of a site, and what the group weighs."""
    gain = a.scores[rows_a] - b.scores[rows_b]
    names = np.unique(a.groups)
    return [(gain[:, a.groups == name], 1 / len(names)) for name in names]


def _interval(gains: Gains, seeds: int, seed: int) -> tuple[float, float]:
    from scipy.stats import bootstrap  # slow to import

    sizes = [seeds, *(gain.shape[1] for gain, _ in gains)]
    drawn = [index for index, size in enumerate(sizes) if size > 1]  # of a single one nothing can be drawn
    if not drawn:
        return float("nan"), float("nan")
    result = bootstrap(
        [np.arange(sizes[index]) for index in drawn],
        _statistic(gains, drawn),
        n_resamples=RESAMPLES,
        vectorized=True,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _statistic(gains: Gains, drawn: list[int]) -> Callable[..., NDArray[np.float64]]:
    """The mean difference for resampled indices of the seeds (0) and of the cases of each group (1, 2, ...)."""

    def statistic(*indices: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        by_source = dict(zip(drawn, indices, strict=True))
        total = 0.0
        for source, (gain, weight) in enumerate(gains, start=1):
            rows = by_source.get(0, np.arange(len(gain)))
            columns = by_source.get(source, np.arange(gain.shape[1]))
            total = total + weight * gain[rows[..., :, None], columns[..., None, :]].mean(axis=(-2, -1))
        return np.asarray(total)

    return statistic
