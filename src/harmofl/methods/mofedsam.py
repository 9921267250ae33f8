"""MoFedSAM: FedSAM with momentum in the global direction of the previous round.

Qu et al., "Generalized Federated Learning via Sharpness Aware Minimization", ICML 2022, Algorithm 2.
https://arxiv.org/abs/2206.02618
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from harmofl.federated.client import ClientContext
from harmofl.federated.messages import ClientState, Extra, Extras, ServerState, Updates
from harmofl.federated.tensors import Arrays, mean, zeros
from harmofl.methods.fedavg import FedAvg, paced
from harmofl.methods.parts.steps import SAM, Step


@dataclass(frozen=True, kw_only=True)
class MoFedSAM(FedAvg):
    """w_i <- w_i - eta v,  v = beta grad f_i(w_i + rho g / ||g||_2) + (1 - beta) D.

    D is the mean of v over the steps and sites of the previous round, 0 at first. With plain SGD this is
    -(w_i - w) / (K eta), as in the paper; sites send the mean itself, so that it is a gradient under momentum and Adam
    too, which doubles the size of updates.

    Args:
        step: `SAM`.
        beta: weight of the site's own gradient, in [0, 1]; 1 gives FedSAM.
        server_lr: eta_g, w <- w + eta_g sum_i p_i (w_i - w), above 0; running statistics are averaged.
    """

    records = True
    ranges: ClassVar[Mapping[str, str]] = {"beta": "[0, 1]", "server_lr": "(0, inf)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.05, 1)}
    uplink_extras = (Extra("direction"),)
    downlink_extras = ("direction",)
    adds_up_weights = True
    step: Step = SAM()
    beta: float = 0.1
    server_lr: float = 1.0

    def start(self, model: nn.Module, sites: int = 0) -> ServerState:
        """Start with D = 0."""
        server = super().start(model, sites)
        return replace(server, extras={"direction": zeros(server.weights, server.params)})

    def prepare(self, client: ClientContext) -> None:
        """Load (1 - beta) D."""
        D = client.on_device(client.broadcast.extras["direction"])
        client.round_state.update(lean=torch._foreach_mul(D, 1 - self.beta), total=client.on_device({}))

    def correct(self, client: ClientContext) -> None:
        """Set the gradient to v = beta g + (1 - beta) D."""
        torch._foreach_mul_(client.grads, self.beta)
        torch._foreach_add_(client.grads, client.round_state["lean"])
        torch._foreach_add_(client.round_state["total"], client.grads)

    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
        """Return the mean of v over the steps taken, to send; 0 if there was none."""
        return {"direction": client.named(torch._foreach_div(client.round_state["total"], max(client.taken, 1)))}, {}

    def server_step(self, server: ServerState, averaged: Arrays, updates: Updates) -> tuple[Arrays, Extras]:
        """Return the average of the weights, at the server's learning rate, and the new D."""
        direction = mean([u.extras["direction"] for u in updates], self.shares(updates))
        return paced(server, averaged, self.server_lr), {"direction": direction}
