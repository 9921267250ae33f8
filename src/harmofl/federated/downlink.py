"""Changes instead of weights from the server to sites, with error feedback at the server.

The global weights move by exactly what is sent, w <- w + Q(d), d = (average - w) + e, and the server keeps
e <- d - Q(d) (Karimireddy et al., ICML 2019, Algorithm 1). So a site that adds Q(d) to the weights that it has gets the
server's weights to the bit. A site that lacks those of the last round, as after an absence or a restart, gets all.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from harmofl.federated.compression import expanded, with_feedback
from harmofl.federated.messages import Broadcast, ServerState
from harmofl.federated.tensors import Arrays
from harmofl.types import WeightFormat

RESIDUAL, CHANGE, BASE = "downlink_residual", "downlink_change", "downlink_base"
"""Groups of the server's extras: e; Q(d) and other entries that changed; the digest of the weights before."""
FROM, TO = "from", "to"
"""Entries in the head of a message: the digests of these weights, and of the complete weights."""


class MissingWeightsError(Exception):
    """The site lacks the weights to which a change is to be added."""


def moved(before: ServerState, after: ServerState, form: WeightFormat) -> ServerState:
    """Return the state after a round with the change of its weights rounded to what is sent."""
    if form == "float32":
        return after
    small, left = with_feedback(after.weights, before.weights, before.extras.get(RESIDUAL, {}), after.params, form)
    weights = {**after.weights, **expanded({name: small[name] for name in left}, before.weights)}
    same = {n for n, value in after.weights.items() if n not in left and torch.equal(value, before.weights[n])}
    change = {name: value for name, value in small.items() if name not in same}
    base = torch.tensor(list(bytes.fromhex(digest(before.weights))), dtype=torch.uint8)
    extras = {**after.extras, RESIDUAL: left, CHANGE: change, BASE: {"digest": base}}
    return replace(after, weights=weights, extras=extras)


def as_change(broadcast: Broadcast, server: ServerState) -> Broadcast:
    """Return the broadcast of a state with the change since the last round in the place of the weights."""
    return replace(broadcast, weights=server.extras.get(CHANGE, broadcast.weights))


def base_of(server: ServerState) -> str:
    """Return the digest of the weights to which the state's change is added; "" without a change."""
    return bytes(server.extras[BASE]["digest"].tolist()).hex() if BASE in server.extras else ""


def digest(weights: Arrays) -> str:
    """Return a digest of names, shapes, types and bits of the weights."""
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(repr((name, tuple(value.shape), str(value.dtype))).encode())
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@dataclass
class HeldWeights:
    """The weights that a site received last.

    Args:
        weights: the weights; empty at first.
        digest: their digest.
    """

    weights: Arrays = field(default_factory=dict)
    digest: str = ""

    def completed(self, head: Mapping[str, Any], broadcast: Broadcast) -> Broadcast:
        """Return the broadcast with complete weights, and hold these if the server may send changes of them.

        Raises:
            MissingWeightsError: if this site lacks the weights to which the change is to be added.
        """
        if not (to := head.get(TO)):
            return broadcast
        if self.digest != to:
            self.weights, self.digest = self._changed(head, broadcast.weights), str(to)
        return replace(broadcast, weights=self.weights)

    def _changed(self, head: Mapping[str, Any], received: Arrays) -> Arrays:
        if FROM not in head:
            return received
        weights = {**self.weights, **expanded(received, self.weights)} if self.digest == head[FROM] else received
        if digest(weights) != head[TO]:
            raise MissingWeightsError
        return weights
