"""FedLESAM: perturb the weights back along the last change of the global model, at one gradient per step.

Fan et al., "Locally Estimated Global Perturbations are Better than Local Perturbations for Federated Sharpness-aware
Minimization", ICML 2024, Algorithm 1. https://arxiv.org/abs/2405.18890
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from harmofl.federated.batch import Batch
from harmofl.federated.client import ClientContext
from harmofl.federated.messages import ClientState, Extras
from harmofl.methods.fedavg import FedAvg
from harmofl.methods.parts.steps import Plain, Step
from harmofl.optim.sharpness import displaced, perturbation


@dataclass(frozen=True, kw_only=True)
class FedLESAM(FedAvg):
    """w_i <- w_i - eta grad f_i(w_i + e), e = rho (w_old - w) / ||w_old - w||_2 for the whole round.

    w_old are the global weights that the site received the last time it took part; in its first round e = 0.

    Args:
        rho: length of the perturbation, at least 0; 0 gives FedAvg.
    """

    records = True
    ranges: ClassVar[Mapping[str, str]] = {"rho": "[0, inf)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"rho": (0.0005, 1)}
    rho: float = 0.05
    step: Step = field(default=Plain(), init=False)

    def prepare(self, client: ClientContext) -> None:
        """Compute e."""
        old = client.state.get("old")
        if old and self.rho > 0:
            way = torch._foreach_sub(client.on_device(old), client.on_device(client.broadcast.weights))
            client.round_state["e"] = perturbation(list(way), self.rho)

    def gradient(self, client: ClientContext, batch: Batch) -> Tensor:
        """Compute the gradient and the objective at w_i + e; this only pass also updates running statistics."""
        if "e" not in client.round_state:
            return self.backward(client, batch)
        with displaced(client.params, client.params, client.round_state["e"]):
            return self.backward(client, batch)

    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
        """Return the global weights of this round, to keep."""
        return {}, {"old": {name: client.broadcast.weights[name] for name in client.names}}
