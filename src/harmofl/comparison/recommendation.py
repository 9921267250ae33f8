"""A recommendation for a federation, from short runs that are scored on validation images alone.

Under ordinary batch normalization, whose running statistics are averaged, normalizers differ most, and which one
serves depends on the data (docs/evidence.md); a short run of each tells them apart, statistics of images do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harmofl.comparison.comparison_page import Advice
from harmofl.comparison.outcomes import Outcome
from harmofl.comparison.score_table import Comparison
from harmofl.comparison.variants import Variant, parse_variants
from harmofl.data.layout.file_names import is_volume
from harmofl.data.layout.site_files import FederationFiles
from harmofl.errors import TrainingError
from harmofl.experiment.config import changed, validated
from harmofl.experiment.tables import Experiment
from harmofl.report.scores import metric_words
from harmofl.types import Task

PLAIN = "images as they are"
OPERATORS: Final[Mapping[str, str]] = {
    "level and contrast": "fedavg+profile:radial_bins=1",
    "level alone": "fedavg+amplitude:band=0",
    "z-score": "fedavg+zscore",
    "whole amplitude": "fedavg+amplitude",
    PLAIN: "fedavg",
    "histogram": "fedavg+histogram",
}
"""What is tried under batch normalization; of those that are level PLAIN is recommended, else the first."""
COLORS: Final = {"reinhard": "fedavg+reinhard", "macenko": "fedavg+macenko"}
"""Tried too where images have three channels."""
LAYER: Final = "instance"
"""The other normalization layer that is tried with FedAvg, beside that of a configuration."""
LEVEL = 0.01
"""Difference of mean validation scores below which two candidates are called level."""
TIED = 1e-6
"""Difference below which no candidate has learnt anything that another has not."""

ROUNDS, SIZE = 15, "64x64"
SMALL: Final[Mapping[Task, Mapping[str, Any]]] = {
    "segmentation": {"features": 6},
    "classification": {"growth": 12, "blocks": [2, 2, 2, 2], "initial": 24},
}
"""Options of the network of the short runs, where the user configures none."""
TRAINING: Final = {"training.optimizer": "adam", "training.lr": 0.004, "training.batch_size": 16}
"""Settings of their training, where the user configures none."""


@dataclass(frozen=True)
class Tried:
    """One candidate after its runs.

    Args:
        variant: what was tried.
        val: (seeds,) mean validation scores over the sites.
        gain: mean difference to FedAvg on the images as they are, with batch normalization.
        wins: number of seeds in which it is ahead of that.
    """

    variant: Variant
    val: tuple[float, ...]
    gain: float
    wins: int

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.val))

    @property
    def settings(self) -> str:
        """The options of `harmofl run` for it."""
        norm = self.variant.changes.get("network.norm", "batch")
        values = "".join(f":{k}={v}" for k, v in self.variant.changes.items() if "." not in k)
        return f"--method {self.variant.method}{values} --set network.norm={norm}"


def candidates(colors: bool, norm: str = LAYER) -> list[Variant]:
    """Return what is tried, for color images or for others, and under the normalization layer `norm` too."""
    operators = {**OPERATORS, **(COLORS if colors else {})}
    listed = parse_variants(",".join(f"{label}={method}" for label, method in operators.items()))
    others = dict.fromkeys((LAYER, norm) if norm not in ("batch", "batch-stats") else (LAYER,))
    return [*listed, *(Variant(f"{layer} normalization", "fedavg", {"network.norm": layer}) for layer in others)]


def in_color(files: FederationFiles) -> bool:
    """Return True for photographs of three channels; volumes may have three slices instead."""
    volumes = any(is_volume(record.image) for site in files.sites for record in site.records)
    return files.info.channels == 3 and not volumes


def short(base: Experiment, task: Task, given: Mapping[str, Any], configured: bool) -> Experiment:
    """Return the experiment of the short runs.

    Args:
        base: the user's experiment.
        task: the task of the data.
        given: the settings that the user gave on the command line, which stay.
        configured: True if the user has a configuration, whose network and learning rate stay.
    """
    pilot = {"network.norm": "batch", "training.rounds": ROUNDS, "data.size": SIZE, "training.augment": "flips"}
    small = {} if configured else {"network.options": SMALL[task], **TRAINING}
    changes = {key: value for key, value in {**small, **pilot}.items() if key not in given}
    return validated(changed(base.model_dump(exclude={"method_table"}), changes), "recommend")


def ranked(outcomes: Sequence[Outcome]) -> list[Tried]:
    """Return the candidates, the best mean validation score first.

    Raises:
        TrainingError: if FedAvg on the images as they are has no finished run.
    """
    by_label = {outcome.variant.label: outcome for outcome in outcomes}
    if PLAIN not in by_label:
        raise TrainingError(f"{PLAIN}: must have a finished run to compare with, but all failed; see the errors above")
    plain = dict(zip(by_label[PLAIN].seeds, by_label[PLAIN].val, strict=True))
    tried = []
    for outcome in outcomes:
        scores = dict(zip(outcome.seeds, outcome.val, strict=True))
        gains = [scores[seed] - plain[seed] for seed in scores if seed in plain]
        gain = float(np.mean(gains)) if gains else float("nan")
        tried.append(Tried(outcome.variant, tuple(map(float, outcome.val)), gain, sum(g > 0 for g in gains)))
    return sorted(tried, key=lambda one: -one.mean)


def chosen(tried: Sequence[Tried], norm: str | None = None) -> Tried:
    """Return the candidate to recommend, of those level with the best: the images as they are, or the first in order.

    Args:
        tried: the candidates.
        norm: consider those of this normalization layer alone; None considers all.
    """
    order = [PLAIN, *(variant.label for variant in candidates(True) if variant.label != PLAIN)]
    among = [one for one in tried if norm is None or one.variant.changes.get("network.norm", "batch") == norm]
    best = max(one.mean for one in among)
    level = [one for one in among if one.mean > best - LEVEL]
    place = {label: k for k, label in enumerate(order)}  # a configuration's own layer stands last
    return min(level, key=lambda one: place.get(one.variant.label, len(place)))


def answer(tried: Sequence[Tried], metric: str, command: str) -> list[str]:
    """Return the recommendation in plain words, and how to go on.

    Args:
        tried: the candidates, the best first.
        metric: name of the score.
        command: the beginning of the command that trains, with the user's options.
    """
    under_batch = {one.mean for one in tried if "network.norm" not in one.variant.changes}
    if max(under_batch) - min(under_batch) < TIED:
        return [
            f"No recommendation: under batch normalization all candidates have the same validation {metric}, so they "
            "learnt nothing in these rounds; use more --rounds or another --set training.lr, and another --out."
        ]
    best, head = chosen(tried), tried[0]
    said = [f"Recommended: {_described(best, metric)}; `{command} {best.settings}`."]
    if "network.norm" in best.variant.changes:
        batch = chosen(tried, "batch")
        said.append(f"If the network must keep batch normalization: {_described(batch, metric)}; `{batch.settings}`.")
    if head.mean > best.mean:
        more = head.mean - best.mean
        said.append(f"{head.variant.label} has {more:.3f} more; below {LEVEL:g} the simpler one is recommended.")
    return said


def advise(comparison: Comparison, rounds: int, command: str) -> Advice:
    """Return the recommendation with the validation scores it rests on, see `answer`.

    Args:
        comparison: the finished runs of the candidates.
        rounds: the number of rounds of each.
        command: as for `answer`.

    Raises:
        TrainingError: as in `ranked`.
    """
    tried, metric = ranked(comparison.outcomes), metric_words(comparison.metric)
    rows = [
        (
            one.variant.label,
            f"{one.mean:.3f}",
            " ".join(f"{score:.3f}" for score in one.val),
            f"{one.gain:+.3f}",
            str(one.wins),
        )
        for one in tried
    ]
    title = f"Validation {metric} of {rounds} round{'s' * (rounds != 1)}, mean over sites"
    columns = ("candidate", "mean", "seeds", "gain", "ahead in seeds")
    return Advice(answer(tried, metric, command), title, columns, rows)


def _described(one: Tried, metric: str) -> str:
    if one.variant.label == PLAIN:
        return f"{PLAIN} and batch normalization, as nothing else is ahead"
    where = f"ahead in {one.wins} of {len(one.val)} seeds"
    return f"{one.variant.label}, validation {metric} {one.gain:+.3f} to FedAvg with batch normalization, {where}"
