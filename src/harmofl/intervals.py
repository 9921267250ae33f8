"""Intervals of a score over its test cases."""

import numpy as np

from harmofl.metrics import CaseScores

RESAMPLES = 2000


def interval(cases: CaseScores, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean over groups of the mean over cases, cases drawn anew within their group."""
    from scipy.stats import bootstrap  # slow to import

    scores, groups = np.asarray(cases.scores, dtype=float), np.asarray(cases.groups)
    parts = [part[~np.isnan(part)] for name in np.unique(groups) if len(part := scores[groups == name])]
    drawn, alone = [part for part in parts if len(part) > 1], [part.mean() for part in parts if len(part) == 1]
    if not drawn:
        return float("nan"), float("nan")

    def statistic(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        means = [sample.mean(axis=axis) for sample in samples]
        return np.asarray(sum(means) + sum(alone)) / (len(means) + len(alone))

    result = bootstrap(
        drawn, statistic, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(seed), batch=100
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
