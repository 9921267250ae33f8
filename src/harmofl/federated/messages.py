"""All that crosses the wire between server and sites, or persists from round to round."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from harmofl.federated.tensors import Arrays, is_finite, num_bytes

ClientState = Mapping[str, Arrays]
"""What a site keeps for itself from round to round: optimizer moments, weights it does not share, control variates."""


@dataclass(frozen=True)
class Extra:
    """What sites send beside their weights.

    Args:
        name: the group's.
        entries: whose the group's tensors are: "params" has one for each of some entries of the state dict, with its
            shape and name; "site" has one that is named as the site; else the names, of numbers.
        of_images: whether single images show in it.
    """

    name: str
    entries: Literal["params", "site"] | tuple[str, ...] = "params"
    of_images: bool = False

    def faults(self, site: str, arrays: Arrays, sent: Arrays) -> Iterator[str]:
        """Yield what does not hold of the group that a site sent, given the weights that it had been sent."""
        names = {"params": sent.keys(), "site": {site}}.get(str(self.entries), set(self.entries))
        for name, value in arrays.items():
            if name not in names:
                yield f"{self.name} must be of its own entries, got {name[:60]!r}"
            elif self.entries == "params" and value.shape != sent[name].shape:
                yield f"{self.name} of {name} must have the shape {tuple(sent[name].shape)}, got {tuple(value.shape)}"
            if not is_finite(value):
                yield f"{self.name} of {name} must be finite, but is not"


LATE = Extra("amplitude")
"""What is collected, of a site that first takes part when there is a common one already."""


@dataclass(frozen=True)
class ServerState:
    """The server's whole memory: saving it is enough to resume.

    Args:
        round: rounds finished; 0 before training.
        weights: the global model's state dict.
        extras: what a method adds, such as a server optimizer's moments.
        params: the names in `weights` that are trained; a server optimizer moves these and averages the rest
            (running statistics, counters, an amplitude).
        sites: N, how many the federation has, whether they took part yet or not; 0 if that is not known.
    """

    round: int
    weights: Arrays
    extras: Mapping[str, Arrays] = field(default_factory=dict)
    params: tuple[str, ...] = ()
    sites: int = 0


@dataclass(frozen=True)
class Broadcast:
    """Server -> site, at the start of a round.

    Args:
        round: the round that begins, from 1.
        weights: the global model's state dict, whole, so that a site that joins late or lost its state has all.
        extras: what a method adds, such as SCAFFOLD's global control variate.
    """

    round: int
    weights: Arrays
    extras: Mapping[str, Arrays] = field(default_factory=dict)

    def num_bytes(self) -> int:
        """Bytes of everything inside."""
        return num_bytes(self.weights) + sum(map(num_bytes, self.extras.values()))


@dataclass(frozen=True)
class ClientUpdate:
    """Site -> server, at the end of a round.

    Args:
        site: the site's name.
        weights: the shared entries of the site's state dict.
        num_samples: n_i, training images of the site.
        num_steps: tau_i, optimizer steps taken this round.
        loss: mean training loss over those steps, before each step.
        extras: what a method adds.
        memory: bytes that the method held at the site while training, beside the model and its optimizer.
        bytes_sent: bytes on the wire, if fewer than the arrays take.
        drift: mean over the steps of ||w_{i,k} - w||^2 (Eq 9), if asked for; measured, not sent.
    """

    site: str
    weights: Arrays
    num_samples: int
    num_steps: int
    loss: float
    extras: Mapping[str, Arrays] = field(default_factory=dict)
    memory: int = 0
    bytes_sent: int = 0
    drift: float = math.nan

    def num_bytes(self) -> int:
        """Bytes of everything inside, as it is sent."""
        return self.bytes_sent or num_bytes(self.weights) + sum(map(num_bytes, self.extras.values()))
