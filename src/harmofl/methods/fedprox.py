"""FedProx: keep each site's weights near the global ones.

Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, Algorithm 2. https://arxiv.org/abs/1812.06127
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from harmofl.federated.client import ClientContext
from harmofl.methods.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class FedProx(FedAvg):
    """Site i minimizes f_i(w_i) + (mu / 2) ||w_i - w||^2: w_i <- w_i - eta (g + mu (w_i - w)).

    Args:
        mu: weight of the proximal term, at least 0; 0 gives FedAvg.
    """

    records = True
    ranges: ClassVar[Mapping[str, str]] = {"mu": "[0, inf)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"mu": (0.0001, 1)}
    mu: float = 0.01

    def correct(self, client: ClientContext) -> None:
        """Set g <- g + mu (w_i - w)."""
        if self.mu:
            torch._foreach_add_(client.grads, client.drift(), alpha=self.mu)
