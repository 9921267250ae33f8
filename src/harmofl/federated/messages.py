"""Messages between server and sites, and the state that persists between rounds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from harmofl.federated.tensors import Arrays, is_finite, num_bytes, total_bytes

Extras = Mapping[str, Arrays]
"""Tensors of a method beside the weights, by group."""
ClientState = Extras
"""State that a site keeps between rounds: optimizer moments, weights it does not share, control variates."""


@dataclass(frozen=True)
class Extra:
    """A group of tensors that sites send beside their weights.

    Args:
        name: name of the group.
        entries: names in the group: "params" for names of the state dict, each tensor with the shape of its entry;
            "site" for one tensor with the name of the site; or a tuple of names, each of a number.
        of_images: True if the group shows single images.
    """

    name: str
    entries: Literal["params", "site"] | tuple[str, ...] = "params"
    of_images: bool = False

    def faults(self, site: str, arrays: Arrays, sent: Arrays) -> Iterator[str]:
        """Yield the faults of the group that a site sent, given the weights that the server had sent."""
        names = {"params": sent.keys(), "site": {site}}.get(str(self.entries), set(self.entries))
        for name, value in arrays.items():
            if name not in names:
                yield f"{self.name} must have only entries that the method declares, got {name[:60]!r}"
            elif self.entries == "params" and value.shape != sent[name].shape:
                yield f"{self.name} of {name} must have the shape {tuple(sent[name].shape)}, got {tuple(value.shape)}"
            if not is_finite(value):
                yield f"{self.name} of {name} must be finite, but is not"


LATE = Extra("amplitude")
"""The amplitude of a site that first takes part after the common amplitude was collected."""


@dataclass(frozen=True)
class ServerState:
    """The complete state of the server, enough to resume training.

    Args:
        round: number of finished rounds; 0 before training.
        weights: the global model's state dict.
        extras: further state of a method, such as a server optimizer's moments.
        params: the names of the trained entries of `weights`; a server optimizer moves these and averages the rest
            (running statistics, counters, an amplitude).
        sites: N, number of sites in the federation, including those that never took part; 0 if unknown.
    """

    round: int
    weights: Arrays
    extras: Extras = field(default_factory=dict)
    params: tuple[str, ...] = ()
    sites: int = 0


@dataclass(frozen=True)
class Broadcast:
    """Message from the server to a site at the start of a round.

    Args:
        round: the round that begins, from 1.
        weights: the global model's complete state dict, so that a site that joins late or lost its state can train.
        extras: further tensors of a method, such as SCAFFOLD's global control variate.
    """

    round: int
    weights: Arrays
    extras: Extras = field(default_factory=dict)

    def num_bytes(self) -> int:
        """Return the bytes of all tensors."""
        return num_bytes(self.weights) + total_bytes(self.extras)


@dataclass(frozen=True)
class ClientUpdate:
    """Message from a site to the server at the end of a round.

    Args:
        site: the site's name.
        weights: the shared entries of the site's state dict.
        num_samples: n_i, number of training images of the site.
        num_steps: tau_i, number of optimizer steps taken this round.
        loss: mean training loss over those steps, before each step.
        extras: further tensors of a method.
        memory: bytes that the method held at the site while training, beside the model and its optimizer.
        bytes_sent: bytes on the wire, if fewer than those of the arrays.
        drift: mean over the steps of ||w_{i,k} - w||^2 (Eq 9), NaN unless measured; not sent.
    """

    site: str
    weights: Arrays
    num_samples: int
    num_steps: int
    loss: float
    extras: Extras = field(default_factory=dict)
    memory: int = 0
    bytes_sent: int = 0
    drift: float = math.nan

    def num_bytes(self) -> int:
        """Return the bytes of the message on the wire."""
        return self.bytes_sent or num_bytes(self.weights) + total_bytes(self.extras)


Updates = Sequence[ClientUpdate]
"""The updates of a round's sites, sorted by site."""
