"""Scores of the paper's tables: test averages in percent, with the standard deviation over the sites.

Jiang, Wang, Dou, "HarmoFL: Harmonizing Local and Global Drifts in Federated Learning on Heterogeneous Medical Images",
AAAI 2022, https://arxiv.org/abs/2112.10775. Its scores at single sites are not recorded here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

RECALLED = "\N{DAGGER}"
"""Mark of a figure that was recalled and not checked against the paper."""


@dataclass(frozen=True)
class PaperScore:
    """One entry of a table of the paper.

    Args:
        mean: mean over the sites, in percent.
        std: standard deviation over the sites, with divisor N - 1, in percent; None if not recorded here.
        recalled: True if the figure was recalled and not checked against the paper.
    """

    mean: float
    std: float | None = None
    recalled: bool = False

    def __str__(self) -> str:
        spread = "" if self.std is None else f" ({self.std:.2f})"
        return f"{self.mean:.2f}{RECALLED * self.recalled}{spread}"


def _recalled(mean: float) -> PaperScore:
    return PaperScore(mean, recalled=True)


PAPER_SCORES: Mapping[str, Mapping[str, PaperScore]] = {
    "camelyon17": {
        "FedAvg": PaperScore(83.71, 6.16),
        "FedProx": PaperScore(83.74, 5.99),
        "FedNova": PaperScore(83.61, 6.00),
        "FedAdam": PaperScore(82.37, 5.65),
        "FedBN": PaperScore(87.33, 10.55),
        "MOON": PaperScore(82.99, 8.93),
        "HarmoFL": PaperScore(95.48, 1.13),
    },
    "nuclei": {
        "FedAvg": PaperScore(67.49, 9.06),
        "FedProx": _recalled(67.49),
        "FedNova": _recalled(67.55),
        "FedAdam": _recalled(67.31),
        "FedBN": PaperScore(70.27, 3.47),
        "MOON": _recalled(66.06),
        "HarmoFL": PaperScore(74.42, 2.76),
    },
    "prostate": {
        "FedAvg": PaperScore(91.44, 1.91),
        "FedProx": _recalled(91.08),
        "FedNova": _recalled(91.60),
        "FedAdam": _recalled(91.30),
        "FedBN": PaperScore(92.75, 1.74),
        "MOON": _recalled(92.23),
        "HarmoFL": PaperScore(94.28, 0.80),
    },
}
"""Scores by task and by the paper's name of the method: accuracy for camelyon17, Dice for the others."""

PAPER_NAMES: Mapping[str, str] = {
    "fedavg": "FedAvg",
    "fedprox": "FedProx",
    "fednova": "FedNova",
    "fedadam": "FedAdam",
    "fedbn": "FedBN",
    "moon": "MOON",
    "harmofl": "HarmoFL",
    "harmofl-released": "HarmoFL",
}
"""The paper's names of our methods; HarmoFL as published and as released are both compared with its HarmoFL."""
