"""MOON: draw each site's representation of an image to the global model's, away from the site's previous one.

Li, He, Song, "Model-Contrastive Federated Learning", CVPR 2021, Algorithm 1. https://arxiv.org/abs/2103.16257
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from harmofl.arrays import Arrays, state_of
from harmofl.batch import Batch
from harmofl.checks import check_above, check_at_least
from harmofl.exchange import ClientState
from harmofl.local import LocalRun
from harmofl.methods.fedavg import FedAvg
from harmofl.models.representation import logits_and_representation


@dataclass(frozen=True, kw_only=True)
class MOON(FedAvg):
    """f_i + mu l,  l = -log(exp(s_global / tau) / (exp(s_global / tau) + exp(s_previous / tau))).

    s are cosines between the representation z of an image and that by the global model of the round, and by the
    model that the site sent last. z is what the network's last layer reads, averaged over positions; the network gets
    no projection head, so that it is the same for every method. Both other models are in evaluation mode and
    without gradient. A site's first round has no previous model and no l.

    Args:
        mu: weight of the contrast, at least 0; 0 gives FedAvg.
        tau: temperature, above 0.
    """

    spans: ClassVar[Mapping[str, tuple[float, float]]] = {"mu": (0.01, 10)}
    mu: float = 1.0
    tau: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("mu", self.mu, 0)
        check_above("tau", self.tau, 0)

    def prepare(self, run: LocalRun) -> None:
        """Lay out the global and the previous model."""
        if self.mu and "previous" in run.state:
            own = run.network.state_dict()
            sent = {name: run.broadcast.weights[f"network.{name}"] for name in own}
            for which, weights in (("global", sent), ("previous", run.state["previous"])):
                # laid out in memory as the network's own, so that a resumed run gives the same bits
                run.scratch[which] = {n: torch.empty_like(w).copy_(weights[n]) for n, w in own.items()}

    def objective(self, run: LocalRun, batch: Batch) -> Tensor:
        """f_i + mu l on one batch."""
        if "previous" not in run.scratch:
            return super().objective(run, batch)
        logits, z = logits_and_representation(run.network, batch.images)
        s = [functional.cosine_similarity(z, self._seen_by(run, which, batch)) for which in ("global", "previous")]
        contrast = functional.softplus((s[1] - s[0]) / self.tau).mean()
        return run.training.loss(logits, batch.targets) + self.mu * contrast

    @torch.no_grad()
    def _seen_by(self, run: LocalRun, which: str, batch: Batch) -> Tensor:
        run.network.eval()
        _, z = logits_and_representation(run.network, batch.images, run.scratch[which])
        run.network.train()
        return z

    def report(self, run: LocalRun) -> tuple[Mapping[str, Arrays], ClientState]:
        """Keep the model."""
        return {}, {"previous": state_of(run.network)}
