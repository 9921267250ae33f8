"""Evaluation of a trained model at sites, also those that did not train: scores, intervals, and every case."""

from collections.abc import Mapping
from dataclasses import dataclass

from harmofl.data.manifest import SPLITS
from harmofl.data.site import Site, undivided
from harmofl.evaluation.confidence_intervals import interval
from harmofl.evaluation.metrics import CaseScores
from harmofl.evaluation.scoring import case_scores, score
from harmofl.experiment.model_build import IN_USE
from harmofl.experiment.trained_model import DEFAULT, TrainedModel
from harmofl.types import Statistics


@dataclass(frozen=True)
class SiteEvaluation:
    """Result of one site.

    `intervals` are the 95 % intervals of the scores over patients, see `confidence_intervals.interval`; NaN for one.
    """

    site: str
    images: int  # number of images scored
    trained: bool  # True if the site took part in training
    scores: Mapping[str, float]  # every metric of the task
    intervals: Mapping[str, tuple[float, float]]
    cases: CaseScores  # the main score of every case
    said: tuple[str, ...]  # the amplitude and statistics in use, in plain words


def evaluate_site(
    model: TrainedModel,
    site: Site,
    split: str | None = None,
    statistics: Statistics = DEFAULT,
    batch_size: int = IN_USE,
    device: str = "cpu",
) -> SiteEvaluation:
    """Score a model at a site.

    Args:
        model: the model.
        site: the site; its images need no split if it did not train.
        split: "train", "val" or "test"; None scores the test images of a site that trained, else all images.
        statistics: see `TrainedModel.outputs`.
        batch_size: images per batch.
        device: device to compute on.
    """
    trained = site.name in model.card["sites"]
    scored, chosen = scored_part(model, site, split)
    outputs = model.outputs(scored, chosen, statistics, batch_size, device)
    scores = score(outputs, scored, chosen)
    cases = {metric: case_scores(metric, outputs, scored, chosen) for metric in scores}
    said = model.said(site.name, statistics)
    if trained and chosen == "test" and not _is_of_run(model, site):
        said.append(f"{site.name}: test images are not those of the run; the model may have trained on some of them")
    return SiteEvaluation(
        site.name,
        len(scored.split(chosen)),
        trained,
        scores,
        {metric: interval(of_cases) for metric, of_cases in cases.items()},
        cases[model.metric],
        tuple(said),
    )


def _is_of_run(model: TrainedModel, site: Site) -> bool:
    """Return whether the test images are those of the run, as far as its card tells; a deployment knows a number."""
    mark, count = site.test.mark(), len(site.test)
    tested, counts = model.card.get("tested", {}), model.card.get("num_tested", {})
    return bool(tested.get(site.name, mark) == mark and counts.get(site.name, count) == count)


def parts_of(model: TrainedModel, site: Site, split: str | None) -> tuple[str, ...]:
    """Return the splits that `evaluate_site` scores, in their order."""
    if split is None and site.name not in model.card["sites"]:
        return SPLITS
    return (split or "test",)


def scored_part(model: TrainedModel, site: Site, split: str | None) -> tuple[Site, str]:
    """Return a site and the name of its split that hold all images of `parts_of`."""
    parts = parts_of(model, site, split)
    return (site, parts[0]) if len(parts) == 1 else (undivided(site), "test")
