"""The record of a round, one line of rounds.jsonl, as training writes it and callbacks get it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harmofl.evaluation.metrics import Summary, summarize

Scores = Mapping[str, Mapping[str, float]]
"""site -> metric -> value."""


@dataclass(frozen=True)
class RoundRecord:
    """One line of rounds.jsonl.

    Args:
        round: the round, from 1.
        seconds: wall time of training, aggregation and validation.
        train_loss: mean training loss per site.
        bytes_up: bytes that all sites sent.
        bytes_down: bytes that the server sent to all sites.
        bytes_kept: bytes of the largest client state, including the optimizer's moments.
        bytes_held: bytes that the method held in memory at a site while training, beside the model and its optimizer.
        val: validation scores per site, in validated rounds.
        best: True if this is the best round so far by mean validation score.
        test: test scores per site, only with evaluation.test_every_round; never used to choose the model.
        left_out: reasons why sites that were drawn have no part in the round, by site; in deployments.
    """

    round: int
    seconds: float
    train_loss: Mapping[str, float]
    bytes_up: int
    bytes_down: int
    bytes_kept: int
    bytes_held: int
    val: Scores | None
    best: bool
    test: Scores | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def summary(self, metric: str) -> Summary | None:
        """Return mean, worst and spread of a validation score over the sites; None for a round without validation."""
        return summarize({site: scores[metric] for site, scores in self.val.items()}) if self.val else None
