"""Intervals of a score over its test cases."""

import numpy as np

from harmofl.metrics import CaseScores

RESAMPLES = 2000


def interval(cases: CaseScores, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean over groups of the mean over cases, cases drawn anew within their group."""
    scores, groups = np.asarray(cases.scores, dtype=float), np.asarray(cases.groups)
    known = ~np.isnan(scores)
    parts = [scores[known & (groups == name)] for name in np.unique(groups[known])]
    if all(len(part) == 1 for part in parts):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = np.mean([_means(part, rng) for part in parts], axis=0)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _means(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(RESAMPLES,) means of as many scores drawn with replacement; a few at a time, for memory."""
    drawn = (rng.integers(len(scores), size=(100, len(scores))) for _ in range(RESAMPLES // 100))
    return np.concatenate([scores[index].mean(axis=1) for index in drawn])
