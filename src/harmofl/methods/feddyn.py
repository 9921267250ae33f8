"""FedDyn: a regularizer that moves with the sites, so that their optima meet at the global one.

Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021, Algorithm 1.
https://arxiv.org/abs/2111.04263
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from harmofl.arrays import Arrays, difference, moved, scaled, zeros
from harmofl.exchange import ClientState, ClientUpdate, ServerState
from harmofl.local import LocalRun
from harmofl.methods.fedavg import FedAvg
from harmofl.methods.roll import roll


@dataclass(frozen=True, kw_only=True)
class FedDyn(FedAvg):
    """w_i <- w_i - eta (g - h_i + lambda (w_i - w));  h_i <- h_i - lambda (w_i - w) after the round's last step.

    h <- h - lambda (1/N) sum_i (w_i - w);  w <- sum_i p_i w_i - h / lambda. Params alone, the rest is averaged; N
    counts every site that ever took part.

    Args:
        lambda_: weight of the regularizer (alpha in its paper), at least 0; 0 gives FedAvg.
    """

    ranges: ClassVar[Mapping[str, str]] = {"lambda_": "[0, inf)"}
    spans: ClassVar[Mapping[str, tuple[float, float]]] = {"lambda_": (0.001, 1)}
    lambda_: float = 0.1

    def start(self, model: nn.Module) -> ServerState:
        """h = 0."""
        server = super().start(model)
        return replace(server, extras={"h": zeros(server.weights, server.params, torch.float64), "roll": {}})

    def prepare(self, run: LocalRun) -> None:
        """Fetch h_i."""
        run.scratch["h"] = run.on_device(run.state.get("h", {}))

    def correct(self, run: LocalRun) -> None:
        """g <- g - h_i + lambda (w_i - w)."""
        if self.lambda_:
            torch._foreach_sub_(run.grads, run.scratch["h"])
            torch._foreach_add_(run.grads, run.drift(), alpha=self.lambda_)

    def report(self, run: LocalRun) -> tuple[Mapping[str, Arrays], ClientState]:
        """Keep h_i."""
        return {}, {"h": run.named(torch._foreach_sub(run.scratch["h"], run.drift(), alpha=self.lambda_))}

    def server_step(
        self, server: ServerState, averaged: Arrays, updates: Sequence[ClientUpdate]
    ) -> tuple[Arrays, Mapping[str, Arrays]]:
        """The average, less h / lambda."""
        if not self.lambda_:
            return averaged, server.extras
        everyone = roll(server, updates)
        h = scaled(server.extras["h"], len(server.extras["roll"]) / len(everyone))
        for update in updates:
            names = [name for name in h if name in update.weights]
            h = {**h, **moved(h, difference(update.weights, server.weights, names), -self.lambda_ / len(everyone))}
        sent = {name: h[name] for name in h if name in averaged}
        return {**averaged, **moved(averaged, sent, -1 / self.lambda_)}, {**server.extras, "h": h, "roll": everyone}
