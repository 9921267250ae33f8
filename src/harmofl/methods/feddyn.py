"""FedDyn: a dynamic regularizer that makes the sites' optima agree with the global one.

Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021, Algorithm 1.
https://arxiv.org/abs/2111.04263
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from harmofl.federated.client import ClientContext
from harmofl.federated.messages import ClientState, Extras, ServerState, Updates
from harmofl.federated.tensors import Arrays, difference, moved_by, scaled, zeros
from harmofl.methods.all_sites_mean import ROLL, over_all
from harmofl.methods.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class FedDyn(FedAvg):
    """w_i <- w_i - eta (g - h_i + lambda (w_i - w));  h_i <- h_i - lambda (w_i - w) after the round's last step.

    h <- h - lambda (1/N) sum_i (w_i - w);  w <- sum_i p_i w_i - h / lambda. This holds for params; other entries are
    averaged. `weighting` replaces 1/N by p_i; N counts all sites, see `harmofl.methods.all_sites_mean`.

    Args:
        lambda_: weight of the regularizer (alpha in the paper), at least 0; 0 gives FedAvg.
    """

    records = True
    ranges: ClassVar[Mapping[str, str]] = {"lambda_": "[0, inf)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"lambda_": (0.001, 1)}
    lambda_: float = 0.1

    def start(self, model: nn.Module, sites: int = 0) -> ServerState:
        """Start with h = 0."""
        server = super().start(model, sites)
        return replace(server, extras={"h": zeros(server.weights, server.params, torch.float64), ROLL: {}})

    def prepare(self, client: ClientContext) -> None:
        """Load h_i."""
        client.round_state["h"] = client.on_device(client.state.get("h", {}))

    def correct(self, client: ClientContext) -> None:
        """Set g <- g - h_i + lambda (w_i - w)."""
        if self.lambda_:
            torch._foreach_sub_(client.grads, client.round_state["h"])
            torch._foreach_add_(client.grads, client.drift(), alpha=self.lambda_)

    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
        """Return h_i, to keep."""
        return {}, {"h": client.named(torch._foreach_sub(client.round_state["h"], client.drift(), alpha=self.lambda_))}

    def server_step(self, server: ServerState, averaged: Arrays, updates: Updates) -> tuple[Arrays, Extras]:
        """Return the average minus h / lambda, and the new h."""
        if not self.lambda_:
            return averaged, server.extras
        names = [name for name in server.extras["h"] if name in averaged]
        changes = [scaled(difference(update.weights, server.weights, names), -self.lambda_) for update in updates]
        kept = over_all(self.average, server, "h", updates, changes)
        sent = {name: kept["h"][name] for name in names}
        return {**averaged, **moved_by(averaged, sent, -1 / self.lambda_)}, {**server.extras, **kept}
