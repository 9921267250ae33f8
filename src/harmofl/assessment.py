"""How a trained model does at sites, also at those that never took part: scores, intervals, and every case."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harmofl.data.site import Site, undivided
from harmofl.evaluation import case_scores, score
from harmofl.metrics import CaseScores
from harmofl.trained import DEFAULT, Statistics, TrainedModel

RESAMPLES = 2000


@dataclass(frozen=True)
class Assessment:
    """One site's result.

    Args:
        site: its name.
        images: how many were scored.
        trained: whether it took part in training.
        scores: every metric of the task.
        low: of the 95 % interval of the main one when cases are drawn again with replacement; NaN for a single case.
        high: of the same.
        cases: the main score of every case.
        said: which amplitude and statistics were used, in plain words.
    """

    site: str
    images: int
    trained: bool
    scores: Mapping[str, float]
    low: float
    high: float
    cases: CaseScores
    said: tuple[str, ...]


def assess(
    model: TrainedModel,
    site: Site,
    split: str | None = None,
    statistics: Statistics = DEFAULT,
    batch_size: int = 32,
    device: str = "cpu",
) -> Assessment:
    """Score a model at a site.

    Args:
        model: the model.
        site: its images need not be split if it never took part.
        split: "train", "val" or "test"; None scores the test images of a site that trained, and all of another.
        statistics: see `TrainedModel.outputs`.
        batch_size: images a batch.
        device: where to compute.
    """
    trained = site.name in model.card["sites"]
    whole = split is None and not trained
    chosen = split or "test"
    scored = undivided(site) if whole else site
    outputs = model.outputs(scored, chosen, statistics, batch_size, device)
    cases = case_scores(model.metric, outputs, scored, chosen)
    low, high = interval(cases)
    said = model.said(site.name, statistics)
    if trained and chosen == "test" and model.card.get("tested", {}).get(site.name, mark := site.test.mark()) != mark:
        said.append(f"{site.name}: test images are not those of the run; it may have trained on some of them")
    return Assessment(
        site.name, len(scored.split(chosen)), trained, score(outputs, scored, chosen), low, high, cases, tuple(said)
    )


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
