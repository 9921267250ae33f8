"""FedSpeed: a proximal term with bias correction, and a gradient mixed with the uphill one.

Sun et al., "FedSpeed: Larger Local Interval, Less Communication Round, and Higher Generalization Accuracy", ICLR 2023,
Algorithm 1. https://arxiv.org/abs/2302.10429
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
from harmofl.optim.sharpness import perturbed


@dataclass(frozen=True, kw_only=True)
class FedSpeed(FedAvg):
    """w_i <- w_i - eta ((1 - mix) g + mix g' - c_i + (w_i - w) / lambda), g' the gradient at w_i + rho g / ||g||_2.

    After the last step c_i <- c_i - (w_i - w) / lambda, and the site sends w_i - lambda c_i; the server averages.

    Args:
        lambda_: inverse weight of the proximal term, above 0.
        mix: share of the uphill gradient (alpha in the paper), in [0, 1]; with 0, or rho = 0, and every site in every
            round this is FedDyn with 1 / lambda.
        rho: length of the perturbation, at least 0.
    """

    records = True
    ranges: ClassVar[Mapping[str, str]] = {"lambda_": "(0, inf)", "mix": "[0, 1]", "rho": "[0, inf)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"lambda_": (1, 1000), "rho": (0.0005, 1)}
    lambda_: float = 10.0
    mix: float = 1.0
    rho: float = 0.05
    step: Step = field(default=Plain(), init=False)

    @property
    def passes(self) -> float:
        """Mean number of gradients per step: 2, or 1 without an uphill gradient."""
        return 2 if self.mix and self.rho > 0 else 1

    def prepare(self, client: ClientContext) -> None:
        """Load lambda c_i."""
        client.round_state["correction"] = client.on_device(client.state.get("correction", {}))

    def gradient(self, client: ClientContext, batch: Batch) -> Tensor:
        """Compute (1 - mix) g + mix g'."""
        loss = self.backward(client, batch)
        if self.rho > 0 and self.mix > 0:
            g = client.grads  # unchanged by the second pass, which creates new ones
            with perturbed(client.model, self.rho):
                self.backward(client, batch)
            if self.mix < 1:
                torch._foreach_lerp_(client.grads, g, 1 - self.mix)
        return loss

    def correct(self, client: ClientContext) -> None:
        """Set g <- g - c_i + (w_i - w) / lambda."""
        pull = torch._foreach_sub(client.drift(), client.round_state["correction"])
        torch._foreach_add_(client.grads, pull, alpha=1 / self.lambda_)

    @torch.no_grad()
    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
        """Update c_i, and set the weights to send to w_i - lambda c_i."""
        correction = torch._foreach_sub(client.round_state["correction"], client.drift())
        torch._foreach_sub_(list[Tensor](client.params), correction)
        return {}, {"correction": client.named(correction)}
