"""Differences between methods, with intervals and p values over seeds and test patients."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harmofl.comparison.outcomes import Outcome
from harmofl.evaluation.confidence_intervals import holm, interval_estimate

FEWEST_SEEDS = 3
"""Fewest seeds with which a difference can be called clear; with fewer, the variance over seeds is hardly known."""


@dataclass(frozen=True)
class Difference:
    """Difference of a method to the baseline in the mean score over the sites.

    Args:
        mean: mean difference over the seeds that both have.
        low: lower end of the 95 % interval, see `evaluation.confidence_intervals.interval_estimate`; with one seed,
            over test patients alone.
        high: upper end of the interval; NaN, as `low`, if there is nothing to draw from.
        better: number of seeds in which the method is better.
        seeds: number of seeds that both have.
        p: p value of a difference of 0; NaN if there is no interval.
    """

    mean: float
    low: float
    high: float
    better: int
    seeds: int
    p: float

    @property
    def clear(self) -> bool:
        """True if p < 0.05 with `FEWEST_SEEDS` seeds or more."""
        return self.seeds >= FEWEST_SEEDS and self.p < 0.05


def method_difference(method: Outcome, baseline: Outcome) -> Difference | None:
    """Return the difference paired by seed and test case; None without a shared seed or with different sites.

    A score is the mean over sites of the mean over groups (classes, for balanced accuracy) of the mean over cases.
    """
    common = [s for s in method.seeds if s in baseline.seeds]
    if not common or method.sites != baseline.sites:
        return None
    ours, theirs = ([outcome.seeds.index(s) for s in common] for outcome in (method, baseline))
    pairs = [(method.cases[site], baseline.cases[site]) for site in method.sites]
    found = interval_estimate([replace(a, scores=a.scores[ours] - b.scores[theirs]) for a, b in pairs])
    by_seed = method.average[ours] - baseline.average[theirs]
    return Difference(found.mean, *found.interval, int(np.sum(by_seed > 0)), len(common), found.p)


def corrected(found: Sequence[Difference | None]) -> list[Difference | None]:
    """Correct p (Holm) for the number of differences over `FEWEST_SEEDS` seeds or more; others keep their p."""
    counts = [one is not None and one.seeds >= FEWEST_SEEDS for one in found]
    p = iter(holm([one.p for one, counted in zip(found, counts, strict=True) if one and counted]))
    return [replace(one, p=next(p)) if one and counted else one for one, counted in zip(found, counts, strict=True)]


def at(outcome: Outcome, sites: Sequence[str]) -> Outcome:
    """Restrict an outcome to some of its sites, which must be all trained or all unseen."""
    trained = set(sites) <= set(outcome.sites)
    names, scores = (outcome.sites, outcome.test) if trained else (outcome.unseen, outcome.test_unseen)
    columns = [names.index(site) for site in sites]
    cases = {site: outcome.cases[site] for site in sites}
    return replace(outcome, sites=tuple(sites), test=scores[:, columns], cases=cases)
