"""Scores of a reproduction beside those of the paper's table, and the paper's orderings of methods."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from harmofl.comparison.outcomes import Outcome
from harmofl.comparison.paper_scores import PAPER_NAMES, PaperScore
from harmofl.comparison.statistics import Difference, corrected, method_difference
from harmofl.errors import RunError
from harmofl.evaluation.confidence_intervals import Floats
from harmofl.experiment.run_files import read_results

METRICS: Mapping[str, tuple[str, ...]] = {
    "camelyon17": ("accuracy",),
    "nuclei": ("dice", "slice_dice_released"),
    "prostate": ("dice", "slice_dice_released"),
}
"""The metrics that stand beside the paper's scores, by task; the first is the main one."""


@dataclass(frozen=True)
class MethodScores:
    """The test scores of one method beside the paper's.

    Args:
        outcome: the outcome in the comparison.
        paper: the paper's score; None for a method that is not in its table.
        scores: (seeds, sites) test scores in percent by metric, the main one first.
    """

    outcome: Outcome
    paper: PaperScore | None
    scores: Mapping[str, Floats]

    @property
    def label(self) -> str:
        """The label of the method."""
        return self.outcome.variant.label

    @property
    def paper_name(self) -> str:
        """The paper's name of the method, or ""."""
        return PAPER_NAMES.get(self.outcome.variant.method, "")

    @property
    def name(self) -> str:
        """The paper's name and the label, as far as they differ."""
        known = {**PAPER_NAMES, "harmofl": "HarmoFL as published", "harmofl-released": "HarmoFL as released"}
        return known.get(self.label) or (f"{self.paper_name} ({self.label})" if self.paper_name else self.label)

    def mean(self, metric: str) -> float:
        """Return the mean over sites and seeds, in percent."""
        return float(self.scores[metric].mean())

    def average(self, metric: str) -> str:
        """Return the mean over the sites and, in brackets, the standard deviation over them, as means over seeds."""
        values = self.scores[metric]
        spread = f" ({values.std(axis=1, ddof=1).mean():.2f})" if values.shape[1] > 1 else ""
        return f"{values.mean():.2f}{spread}"

    def seed_spread(self, metric: str) -> str:
        """Return the standard deviation over the seeds of the mean over the sites; "-" for one seed."""
        return _spread(self.scores[metric].mean(axis=1))

    def at_sites(self, metric: str) -> list[str]:
        """Return, for each site, the mean over the seeds and their standard deviation in brackets."""
        columns = self.scores[metric].T
        return [f"{site.mean():.2f}" + (f" ({_spread(site)})" if len(site) > 1 else "") for site in columns]

    def difference(self, metric: str) -> str:
        """Return our mean minus the paper's, in percentage points; "-" for a method that is not in its table."""
        return "-" if self.paper is None else f"{self.mean(metric) - self.paper.mean:+.2f}"


def _spread(values: Floats) -> str:
    return f"{values.std(ddof=1):.2f}" if len(values) > 1 else "-"


def method_scores(
    outcomes: Sequence[Outcome], folder: Path, metrics: Sequence[str], paper: Mapping[str, PaperScore]
) -> list[MethodScores]:
    """Return the scores of every outcome from the results of its runs.

    Args:
        outcomes: the outcomes of the comparison.
        folder: the folder of the comparison.
        metrics: the metrics to read.
        paper: the paper's scores by its name of the method.

    Raises:
        RunError: if a result lacks a metric or cannot be read.
    """
    return [
        MethodScores(
            outcome,
            paper.get(PAPER_NAMES.get(outcome.variant.method, "")),
            {metric: 100 * _read(outcome, folder, metric) for metric in metrics},
        )
        for outcome in outcomes
    ]


def _read(outcome: Outcome, folder: Path, metric: str) -> Floats:
    rows = []
    for seed in outcome.seeds:
        place = folder / outcome.variant.folder / f"seed-{seed}"
        _, result, _ = read_results(place)
        if result is None or any(metric not in result.test.get(site, {}) for site in outcome.sites):
            raise RunError(f"{place}: must have test scores in {metric} at every site; delete the folder and repeat")
        rows.append([result.test[site][metric] for site in outcome.sites])
    return np.array(rows, float)


@dataclass(frozen=True)
class Ordering:
    """Two methods in the order of the paper, and how they stand here.

    Args:
        ahead: the method that is better in the paper.
        behind: the other.
        found: our difference, ahead minus behind, in the metric of the comparison.
    """

    ahead: MethodScores
    behind: MethodScores
    found: Difference | None

    @property
    def gap(self) -> float:
        """The paper's difference, in percentage points."""
        return _paper_mean(self.ahead) - _paper_mean(self.behind)

    @property
    def recalled(self) -> bool:
        """True if one of the paper's two figures was recalled and not checked."""
        return any(one.paper is not None and one.paper.recalled for one in (self.ahead, self.behind))

    @property
    def holds(self) -> bool:
        """True if the mean difference here has the sign of the paper's."""
        return self.found is not None and self.found.mean > 0

    @property
    def verdict(self) -> str:
        """The statement on whether the order holds, and whether that is more than chance."""
        if self.found is None:
            return "unknown: no seed or not the same sites for both"
        if self.found.mean == 0:
            return "equal here"
        chance = "clear" if self.found.clear else "not clear"
        return f"holds, {chance}" if self.holds else f"does not hold, {chance}"

    def text(self, metric: str) -> str:
        """Return the difference in percentage points, with its interval if `metric` is that of the comparison."""
        return f"{self.ahead.mean(metric) - self.behind.mean(metric):+.2f}"


def _paper_mean(method: MethodScores) -> float:
    assert method.paper is not None
    return method.paper.mean


def orderings(methods: Sequence[MethodScores]) -> list[Ordering]:
    """Return the paper's orderings of FedAvg or HarmoFL with each other method; equal figures give none."""
    pairs = list(_pairs([method for method in methods if method.paper]))
    found = corrected([method_difference(ahead.outcome, behind.outcome) for ahead, behind in pairs])
    return [Ordering(*pair, difference) for pair, difference in zip(pairs, found, strict=True)]


def _pairs(methods: Sequence[MethodScores]) -> Iterator[tuple[MethodScores, MethodScores]]:
    for one, other in combinations(methods, 2):
        gap = _paper_mean(one) - _paper_mean(other)
        if gap and {"FedAvg", "HarmoFL"} & {one.paper_name, other.paper_name}:
            yield (one, other) if gap > 0 else (other, one)
