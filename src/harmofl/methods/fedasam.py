"""FedASAM: FedSAM with a climb in proportion to the size of each weight.

Caldarola, Caputo, Ciccone, "Improving Generalization in Federated Learning by Seeking Flat Minima", ECCV 2022,
Section 4.1, after Kwon et al., "ASAM", ICML 2021. https://arxiv.org/abs/2203.11834
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harmofl.federated.batch import Batch
from harmofl.federated.client import ClientContext
from harmofl.methods.fedavg import FedAvg
from harmofl.optim.sharpness import climb, displaced


@dataclass(frozen=True, kw_only=True)
class FedASAM(FedAvg):
    """w <- w - eta grad f_i(w + alpha T^2 g / ||T g||_2), T = |w| + eta for entries called weight, 1 for the others.

    Args:
        alpha: length of the climb (rho in the paper), at least 0; 0 gives FedAvg.
        eta: constant added to |w|, at least 0.
    """

    climbs_as_said: ClassVar[bool] = False
    ranges: ClassVar[Mapping[str, str]] = {"eta": "[0, inf)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"alpha": (0.005, 5)}
    alpha: float = 0.7
    eta: float = 0.2

    def gradient(self, client: ClientContext, batch: Batch) -> Tensor:
        """Compute the gradient after the adaptive climb."""
        loss = self.backward(client, batch)
        if self.alpha > 0:
            with torch.no_grad():
                T = [self._scale(name, w) for name, w in zip(client.names, client.params, strict=True)]
                e = torch._foreach_mul(climb(list(torch._foreach_mul(client.grads, T)), self.alpha), T)
            with displaced(client.model, client.params, e):
                self.backward(client, batch)
        return loss

    def _scale(self, name: str, w: Tensor) -> Tensor:
        return w.abs() + self.eta if name.endswith("weight") else torch.ones_like(w)
