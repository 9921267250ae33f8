"""FedAvgM: momentum at the server.

Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019,
Section 4.3. https://arxiv.org/abs/1909.06335
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from harmofl.federated.messages import Extras, ServerState, Updates
from harmofl.federated.tensors import Arrays, difference, moved_by, zeros
from harmofl.methods.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class FedAvgM(FedAvg):
    """v <- beta v + (w - sum_i p_i w_i),  w <- w - v for the params; other entries are averaged.

    Args:
        beta: momentum, in [0, 1); 0 gives FedAvg.
    """

    ranges: ClassVar[Mapping[str, str]] = {"beta": "[0, 1)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.1, 0.99)}
    adds_up_weights = True
    beta: float = 0.9

    def start(self, model: nn.Module, sites: int = 0) -> ServerState:
        """Start with v = 0."""
        server = super().start(model, sites)
        return replace(server, extras={"v": zeros(server.weights, server.params, torch.float64)})

    def server_step(self, server: ServerState, averaged: Arrays, updates: Updates) -> tuple[Arrays, Extras]:
        """Take the step with momentum."""
        sent = [name for name in server.params if name in averaged]
        gradient = difference(server.weights, averaged, sent)
        v = {name: self.beta * server.extras["v"][name] + gradient[name] for name in sent}
        extras = {**server.extras, "v": {**server.extras["v"], **v}}
        return {**averaged, **moved_by(server.weights, v, -1)}, extras
