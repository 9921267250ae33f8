"""The sites that ever took part, for methods that average over all of the federation when only some do.

What such a method keeps at the server is a mean over all N sites, a site that has not come yet counting as 0. Where
p_i goes by images, the images of those that have not come yet are taken to be as many as those of the others are on
average; and where N is not known, those that ever took part count. A site that lost what it keeps is the same site with
a fresh start; the server's mean then stays off by what was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from harmofl.federated.messages import ClientUpdate, ServerState
from harmofl.federated.tensors import Arrays, moved_by, scaled

if TYPE_CHECKING:
    from harmofl.methods.fedavg import FedAvg

ROLL = "roll"
"""The server's extra with what the share of every site that ever took part is in proportion to."""


def over_all(
    method: FedAvg, server: ServerState, group: str, updates: Sequence[ClientUpdate], changes: Sequence[Arrays]
) -> dict[str, Arrays]:
    """The server's extra `group`, m <- m + sum_i p_i d_i with p_i among all N sites, and the roll.

    Args:
        method: whose weighting p_i goes by.
        server: with the extras as they were.
        group: which of them is such a mean.
        updates: of this round's sites.
        changes: d_i, one each; what one lacks has not changed.
    """
    before = server.extras.get(ROLL, {})
    roll = {**before, **{u.site: torch.tensor(method.weight(u), dtype=torch.float64) for u in updates}}
    whole = _whole(roll, server.sites)
    mean = scaled(server.extras[group], _whole(before, server.sites) / whole)
    for update, change in zip(updates, changes, strict=True):
        mean = {**mean, **moved_by(mean, change, method.weight(update) / whole)}
    return {group: mean, ROLL: roll}


def _whole(roll: Mapping[str, torch.Tensor], sites: int) -> float:
    """What all shares are in proportion to, in all."""
    known = sum(map(float, roll.values()))
    return known * max(sites, len(roll)) / len(roll) if roll else 0.0
