"""FedSMOO: FedDyn with perturbations that also agree between the sites.

Sun et al., "Dynamic Regularized Sharpness Aware Minimization in Federated Learning: Approaching Global Consistency and
Smooth Landscape", ICML 2023, Algorithm 1. https://arxiv.org/abs/2305.11584
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from harmofl.federated.batch import Batch
from harmofl.federated.client import ClientContext
from harmofl.federated.messages import ClientState, Extra, Extras, ServerState, Updates
from harmofl.federated.tensors import Arrays, mean, zeros
from harmofl.methods.feddyn import FedDyn
from harmofl.methods.parts.steps import Plain, Step
from harmofl.optim.sharpness import displaced, perturbation


@dataclass(frozen=True, kw_only=True)
class FedSMOO(FedDyn):
    """FedDyn with the gradient at w_i + e, e = rho (g - m_i - s) / ||g - m_i - s||_2,  m_i <- m_i + e - s, each step.

    The site sends d_i = m_i - e of its last step; the server sets s = rho d / ||d||_2, d = sum_i p_i d_i.

    Args:
        rho: length of the perturbation (r in the paper), at least 0; 0 gives FedDyn.
        lambda_: weight of the regularizer (1 / beta in the paper), at least 0.
    """

    records = True
    ranges: ClassVar[Mapping[str, str]] = {"rho": "[0, inf)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"lambda_": (0.001, 1), "rho": (0.0005, 1)}
    uplink_extras = (Extra("s"),)
    downlink_extras = ("s",)
    rho: float = 0.05
    step: Step = field(default=Plain(), init=False)

    @property
    def passes(self) -> float:
        """Number of gradients per step: 2, or 1 for rho = 0."""
        return 2 if self.rho > 0 else 1

    def start(self, model: nn.Module, sites: int = 0) -> ServerState:
        """Start with s = 0."""
        server = super().start(model, sites)
        return replace(server, extras={**server.extras, "s": zeros(server.weights, server.params)})

    def prepare(self, client: ClientContext) -> None:
        """Load m_i and s."""
        super().prepare(client)
        m, s = client.on_device(client.state.get("m", {})), client.on_device(client.broadcast.extras["s"])
        client.round_state.update(m=m, s=s, e=client.on_device({}))

    def gradient(self, client: ClientContext, batch: Batch) -> Tensor:
        """Compute the gradient at w_i + e."""
        loss = self.backward(client, batch)
        if self.rho > 0:
            m, s = client.round_state["m"], client.round_state["s"]
            e = perturbation(list(torch._foreach_sub(torch._foreach_sub(client.grads, m), s)), self.rho)
            torch._foreach_add_(m, torch._foreach_sub(e, s))
            client.round_state["e"] = e
            with displaced(client.model, client.params, e):
                self.backward(client, batch)
        return loss

    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
        """Return m_i - e to send, and m_i to keep."""
        extras, kept = super().report(client)
        difference = torch._foreach_sub(client.round_state["m"], client.round_state["e"])
        return {**extras, "s": client.named(difference)}, {**kept, "m": client.named(client.round_state["m"])}

    def server_step(self, server: ServerState, averaged: Arrays, updates: Updates) -> tuple[Arrays, Extras]:
        """Take FedDyn's step, and set s."""
        weights, extras = super().server_step(server, averaged, updates)
        s = mean([update.extras["s"] for update in updates], self.shares(updates))
        return weights, {**extras, "s": dict(zip(s, perturbation(list(s.values()), self.rho), strict=True))}
