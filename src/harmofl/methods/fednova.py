"""FedNova: normalize each site's update by its number of steps.

Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", NeurIPS 2020,
Eq 6-7. https://arxiv.org/abs/2007.07481
"""

from dataclasses import dataclass

import torch

from harmofl.errors import ConfigError
from harmofl.federated.client import ClientContext
from harmofl.federated.messages import ClientState, Extra, Extras, ServerState, Updates
from harmofl.federated.tensors import Arrays, difference, moved_by
from harmofl.methods.fedavg import FedAvg
from harmofl.methods.parts.averages import Mean


@dataclass(frozen=True, kw_only=True)
class FedNova(FedAvg):
    """w <- w + tau_eff sum_i p_i (w_i - w) / ||a_i||_1, tau_eff = sum_i p_i ||a_i||_1.

    ||a_i||_1 is the site's number of gradients of weight 1: tau_i for tau_i steps of plain SGD or Adam; with momentum
    rho (tau_i - rho (1 - rho^tau_i) / (1 - rho)) / (1 - rho), for which momentum restarts in every round. Only params
    are normalized; running statistics are averaged. Equal steps at all sites and no momentum give FedAvg.
    """

    records = True
    uplink_extras = (Extra("nova", ("a",)),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.average, Mean):
            raise ConfigError(f"fednova must average by the mean, got {self.average}; leave the average part out")

    def prepare(self, client: ClientContext) -> None:
        """Reset the momentum."""
        for entries in client.optimizer.state.values():
            entries.pop("momentum_buffer", None)

    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
        """Return ||a_i||_1, to send."""
        tau, rho = client.taken, float(client.optimizer.param_groups[0].get("momentum", 0))
        norm = (tau - rho * (1 - rho**tau) / (1 - rho)) / (1 - rho)
        return {"nova": {"a": torch.tensor(norm, dtype=torch.float64)}}, {}

    def server_step(self, server: ServerState, averaged: Arrays, updates: Updates) -> tuple[Arrays, Extras]:
        """Apply the normalized updates of the params."""
        p, a = self.shares(updates), [float(u.extras["nova"]["a"]) for u in updates]
        tau_eff = sum(p_i * a_i for p_i, a_i in zip(p, a, strict=True))
        weights = {name: value.double() for name, value in server.weights.items() if name in server.params}
        for p_i, a_i, update in zip(p, a, updates, strict=True):
            names = [name for name in weights if name in update.weights]
            if a_i:  # else no step was taken
                weights |= moved_by(weights, difference(update.weights, server.weights, names), p_i * tau_eff / a_i)
        return {**averaged, **{n: w.to(server.weights[n].dtype) for n, w in weights.items()}}, server.extras
