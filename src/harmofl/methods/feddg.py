"""FedDG: train on images mixed with the low-frequency amplitude of images of other sites.

Liu et al., "FedDG: Federated Domain Generalization on Medical Image Segmentation via Episodic Learning in Continuous
Frequency Space", CVPR 2021, Section 3.2. https://arxiv.org/abs/2103.06030
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from harmofl.federated.batch import Batch
from harmofl.federated.client import ClientContext
from harmofl.federated.messages import ClientState, Extra, Extras, ServerState, Updates
from harmofl.federated.tensors import Arrays
from harmofl.methods.fedavg import FedAvg
from harmofl.utils.seeding import rng


@dataclass(frozen=True, kw_only=True)
class FedDG(FedAvg):
    """A(x) <- (1 - l) A(x) + l A(x') for the lowest frequencies, l ~ U(0, 1), x' an image of another site.

    In round 1 each site sends the amplitudes of a few training images, cut to the window, and trains as in FedAvg; the
    server sends them to all. From round 2 a share of each batch is mixed. This is the paper's continuous frequency
    space alone, without its episodic meta-learning and boundary loss.

    Args:
        window: L, in [0, 0.5]; the window is the square of frequencies up to floor(L min(H, W)) cycles per image.
        bank: number of images whose amplitude a site sends, at least 1.
        chance: share of the images that are mixed, in [0, 1]; 0 gives FedAvg.
    """

    ranges: ClassVar[Mapping[str, str]] = {"window": "[0, 0.5]", "chance": "[0, 1]", "bank": "whole [1, inf)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"window": (0.005, 0.2), "chance": (0.1, 1)}
    takes_volumes: ClassVar[bool] = False
    uplink_extras = (Extra("bank", "site", of_images=True),)
    downlink_extras = ("bank",)
    adds_up_weights = True
    window: float = 0.03
    bank: int = 16
    chance: float = 0.5

    def prepare(self, client: ClientContext) -> None:
        """Collect the other sites' amplitudes."""
        bank = client.broadcast.extras.get("bank", {})
        others = [bank[site] for site in sorted(bank) if site != client.site.name]
        if others and self.chance:
            client.round_state["others"] = torch.cat(others).to(client.training.device)
            client.round_state["random"] = rng(client.training.seed, "feddg", client.broadcast.round, client.site.name)

    def local_step(self, client: ClientContext, batch: Batch) -> Tensor:
        """Take a step on a batch of which some images are mixed."""
        if "others" in client.round_state:
            batch = replace(
                batch, images=self._mixed(batch.images, client.round_state["others"], client.round_state["random"])
            )
        return super().local_step(client, batch)

    def _mixed(self, x: Tensor, others: Tensor, random: np.random.Generator) -> Tensor:
        mix = random.random(len(x)) * (random.random(len(x)) < self.chance)
        lent = others[torch.from_numpy(random.integers(0, len(others), len(x))).to(others.device)]
        share = torch.from_numpy(mix).to(x).view(-1, 1, 1, 1)
        F = torch.fft.rfft2(x)
        rows, columns = self._window(x)
        A = F[..., rows, columns].abs()
        F[..., rows, columns] = torch.polar((1 - share) * A + share * lent, F[..., rows, columns].angle())
        return torch.where(share > 0, torch.fft.irfft2(F, s=x.shape[-2:]).clamp(0, 1), x)

    def _window(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows -b..b and columns 0..b of the half spectrum, as a pair of indices."""
        b = math.floor(self.window * min(x.shape[-2:]))
        rows = torch.arange(-b, b + 1, device=x.device) % x.shape[-2]
        return rows[:, None], torch.arange(b + 1, device=x.device)

    def report(self, client: ClientContext) -> tuple[Extras, ClientState]:
        """Return the site's amplitudes, to send in its first round."""
        if client.site.name in client.broadcast.extras.get("bank", {}):
            return {}, {}
        order = rng(client.training.seed, "bank", client.site.name).permutation(len(client.site.train))
        images = client.site.train.batch(np.sort(order[: self.bank])).images
        return {"bank": {client.site.name: torch.fft.rfft2(images)[(..., *self._window(images))].abs()}}, {}

    def server_step(self, server: ServerState, averaged: Arrays, updates: Updates) -> tuple[Arrays, Extras]:
        """Return the average of the weights, and the bank with the new amplitudes."""
        new = {site: A for update in updates for site, A in update.extras.get("bank", {}).items()}
        return averaged, {**server.extras, "bank": {**server.extras.get("bank", {}), **new}}
