"""FedAdam: Adam at the server.

Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2. https://arxiv.org/abs/2003.00295
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from harmofl.federated.messages import Extras, ServerState, Updates
from harmofl.federated.tensors import Arrays, difference, moved_by, zeros
from harmofl.methods.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class FedAdam(FedAvg):
    """w <- w + server_lr m / (sqrt(v) + tau), for the mean update D = sum_i p_i w_i - w of the params.

    m <- beta1 m + (1 - beta1) D,  v <- beta2 v + (1 - beta2) D^2, from m = 0 and v = tau^2, without bias correction.
    Other entries (running statistics, counters) are averaged: Adam would make a variance negative.

    Args:
        server_lr: eta, the server's learning rate, above 0.
        beta1: decay of m, in [0, 1).
        beta2: decay of v, in [0, 1].
        tau: adaptivity, above 0 and below 1e150; with server_lr = tau very large and beta1 = beta2 = 0 this is FedAvg.
    """

    ranges: ClassVar[Mapping[str, str]] = {
        "server_lr": "(0, inf)",
        "tau": "(0, 1e150)",
        "beta1": "[0, 1)",
        "beta2": "[0, 1]",
    }
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"server_lr": (0.0001, 0.1), "tau": (0.0001, 0.1)}
    adds_up_weights = True
    server_lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def start(self, model: nn.Module, sites: int = 0) -> ServerState:
        """Start with m = 0 and v = tau^2."""
        server = super().start(model, sites)
        m = zeros(server.weights, server.params, torch.float64)
        v = {name: torch.full_like(value, float(self.tau) ** 2) for name, value in m.items()}
        return replace(server, extras={"m": m, "v": v})

    def second_moment(self, v: Tensor, square: Tensor) -> Tensor:
        """Return the new v, beta2 v + (1 - beta2) D^2."""
        return self.beta2 * v + (1 - self.beta2) * square

    def server_step(self, server: ServerState, averaged: Arrays, updates: Updates) -> tuple[Arrays, Extras]:
        """Take the adaptive step."""
        D = difference(averaged, server.weights, [name for name in server.params if name in averaged])
        m = {n: self.beta1 * server.extras["m"][n] + (1 - self.beta1) * d for n, d in D.items()}
        v = {n: self.second_moment(server.extras["v"][n], d**2) for n, d in D.items()}
        step = {n: m[n] / (v[n].sqrt() + self.tau) for n in D}
        extras = {"m": {**server.extras["m"], **m}, "v": {**server.extras["v"], **v}}
        return {**averaged, **moved_by(server.weights, step, self.server_lr)}, extras
