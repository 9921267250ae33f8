"""FedSAM: step with the gradient a little uphill, so that sites agree on flat minima.

Qu et al., "Generalized Federated Learning via Sharpness Aware Minimization", ICML 2022, Algorithm 1.
https://arxiv.org/abs/2206.02618
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from harmofl.federated.messages import ClientUpdate, ServerState
from harmofl.federated.tensors import Arrays
from harmofl.methods.fedavg import FedAvg, paced


@dataclass(frozen=True, kw_only=True)
class FedSAM(FedAvg):
    """w <- w - eta grad f_i(w + alpha g / ||g||_2), g = grad f_i(w).

    Args:
        alpha: length of the climb (rho in the paper), at least 0; 0 gives FedAvg with one pass per step.
        server_lr: eta_g, w <- w + eta_g sum_i p_i (w_i - w), above 0; running statistics are averaged.
    """

    ranges: ClassVar[Mapping[str, str]] = {"server_lr": "(0, inf)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"alpha": (0.0005, 1)}
    alpha: float = 0.05
    server_lr: float = 1.0

    def server_step(
        self, server: ServerState, averaged: Arrays, updates: Sequence[ClientUpdate]
    ) -> tuple[Arrays, Mapping[str, Arrays]]:
        """Move the weights to the sites' average at the server's learning rate."""
        return paced(server, averaged, self.server_lr), server.extras
