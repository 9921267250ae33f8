"""SCAFFOLD: control variates remove each site's own direction from its steps.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, Algorithm 1,
option II. https://arxiv.org/abs/1910.06378
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from harmofl.federated.client import ClientContext
from harmofl.federated.messages import ClientState, Extra, Extras, ServerState, Updates
from harmofl.federated.tensors import Arrays, zeros
from harmofl.methods.all_sites_mean import ROLL, over_all
from harmofl.methods.fedavg import FedAvg, paced


@dataclass(frozen=True, kw_only=True)
class Scaffold(FedAvg):
    """w_i <- w_i - eta (g - c_i + c);  c_i <- (1/K) sum_k g_k;  c <- c + (1/N) sum_i (c_i_new - c_i_old).

    The mean of the round's K gradients equals option II, c_i - c + (w - w_i) / (K eta), for plain SGD; here the mean
    itself is used, since under momentum or Adam the change of the weights is no gradient. `weighting` replaces 1/N by
    p_i; N counts all sites of the federation, see `harmofl.methods.all_sites_mean`.

    Args:
        server_lr: eta_g, w <- w + eta_g sum_i p_i (w_i - w), above 0; running statistics are averaged.
    """

    records = True
    ranges: ClassVar[Mapping[str, str]] = {"server_lr": "(0, inf)"}
    server_lr: float = 1.0
    uplink_extras = (Extra("control"),)
    downlink_extras = ("control",)
    adds_up_weights = True

    def start(self, model: nn.Module, sites: int = 0) -> ServerState:
        """Start with c = 0."""
        server = super().start(model, sites)
        return replace(server, extras={"control": zeros(server.weights, server.params), ROLL: {}})

    def prepare(self, client: ClientContext) -> None:
        """Compute c - c_i."""
        c, c_i = client.on_device(client.broadcast.extras["control"]), client.on_device(client.state.get("control", {}))
        client.round_state.update(own=c_i, shift=torch._foreach_sub(c, c_i), total=client.on_device({}))

    def correct(self, client: ClientContext) -> None:
        """Set g <- g - c_i + c."""
        torch._foreach_add_(client.round_state["total"], client.grads)
        torch._foreach_add_(client.grads, client.round_state["shift"])

    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
        """Return the change of c_i to send, and c_i to keep, which does not change if no step was taken."""
        c_i = (
            torch._foreach_div(client.round_state["total"], client.taken) if client.taken else client.round_state["own"]
        )
        change = torch._foreach_sub(c_i, client.round_state["own"])
        return {"control": client.named(change)}, {"control": client.named(c_i)}

    def server_step(self, server: ServerState, averaged: Arrays, updates: Updates) -> tuple[Arrays, Extras]:
        """Return the average of the weights, at the server's learning rate, and the new c."""
        changes = [update.extras["control"] for update in updates]
        kept = over_all(self.average, server, "control", updates, changes)
        return paced(server, averaged, self.server_lr), {**server.extras, **kept}
