"""Is one method better than another, and by more than seeds and test patients vary?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harmofl.comparison.outcomes import Outcome
from harmofl.evaluation.confidence_intervals import Cases, holm, interval_estimate

FEWEST_SEEDS = 3
"""With fewer, nothing is called clear: what seeds do is then hardly known, or not at all."""


@dataclass(frozen=True)
class Difference:
    """How much better a method is than the baseline, in the mean over the sites.

    Args:
        mean: over the seeds that both have.
        low: of its 95 % interval, see `evaluation.confidence_intervals.estimate`; with one seed, over test patients
            alone.
        high: of the same; NaN, as `low`, where there is nothing to draw from.
        better: in how many seeds it is better.
        seeds: how many both have.
        p: of a difference of 0; NaN where there is no interval.
    """

    mean: float
    low: float
    high: float
    better: int
    seeds: int
    p: float

    @property
    def clear(self) -> bool:
        """Whether it is more than chance: p < 0.05, over three seeds or more."""
        return self.seeds >= FEWEST_SEEDS and self.p < 0.05


def method_difference(method: Outcome, baseline: Outcome) -> Difference | None:
    """The paired difference: the same seeds, the same test cases; None where the two share no seed.

    One number is the mean over sites, of the mean over groups (classes, for balanced accuracy), of the mean over cases.
    """
    common = [s for s in method.seeds if s in baseline.seeds]
    if not common or method.sites != baseline.sites:
        return None
    ours, theirs = ([outcome.seeds.index(s) for s in common] for outcome in (method, baseline))
    pairs = [(method.cases[site], baseline.cases[site]) for site in method.sites]
    found = interval_estimate([Cases(a.scores[ours] - b.scores[theirs], a.groups, a.patients) for a, b in pairs])
    by_seed = method.average[ours] - baseline.average[theirs]
    return Difference(found.mean, *found.interval, int(np.sum(by_seed > 0)), len(common), found.p)


def corrected(found: Sequence[Difference | None]) -> list[Difference | None]:
    """The same differences, their p corrected (Holm) for how many there are of which any could be called clear."""
    counts = [one is not None and one.seeds >= FEWEST_SEEDS for one in found]
    p = iter(holm([one.p for one, counted in zip(found, counts, strict=True) if one and counted]))
    return [replace(one, p=next(p)) if one and counted else one for one, counted in zip(found, counts, strict=True)]


def at(outcome: Outcome, sites: Sequence[str]) -> Outcome:
    """The same, of some of its sites alone, all of which trained or none."""
    trained = set(sites) <= set(outcome.sites)
    names, scores = (outcome.sites, outcome.test) if trained else (outcome.unseen, outcome.test_unseen)
    columns = [names.index(site) for site in sites]
    cases = {site: outcome.cases[site] for site in sites}
    return replace(outcome, sites=tuple(sites), test=scores[:, columns], cases=cases)
