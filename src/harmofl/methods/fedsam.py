"""FedSAM: step with the gradient a little uphill, so that sites agree on flat minima.

Qu et al., "Generalized Federated Learning via Sharpness Aware Minimization", ICML 2022, Algorithm 1.
https://arxiv.org/abs/2206.02618
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harmofl.federated.messages import Extras, ServerState, Updates
from harmofl.federated.tensors import Arrays
from harmofl.methods.fedavg import FedAvg, paced
from harmofl.methods.parts.steps import SAM, Step


@dataclass(frozen=True, kw_only=True)
class FedSAM(FedAvg):
    """w <- w - eta grad f_i(w + rho g / ||g||_2), g = grad f_i(w).

    Args:
        step: `SAM`; with rho = 0 this is FedAvg.
        server_lr: eta_g, w <- w + eta_g sum_i p_i (w_i - w), above 0; running statistics are averaged.
    """

    ranges: ClassVar[Mapping[str, str]] = {"server_lr": "(0, inf)"}
    adds_up_weights = True
    step: Step = SAM()
    server_lr: float = 1.0

    def server_step(self, server: ServerState, averaged: Arrays, updates: Updates) -> tuple[Arrays, Extras]:
        """Move the weights to the sites' average at the server's learning rate."""
        return paced(server, averaged, self.server_lr), server.extras
