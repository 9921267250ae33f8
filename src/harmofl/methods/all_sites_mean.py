"""Roll of the sites that ever took part, for methods that average over the whole federation when only some do.

Such a method keeps a mean over all N sites at the server, in which a site that has not taken part yet counts as 0.
If p_i depends on the number of images, such a site is assumed to have the mean number of the others; if N is not
known, only the sites that ever took part count. A site that lost its client state is the same site with a fresh
start; the server's mean then stays off by the lost state.
"""

from collections.abc import Mapping, Sequence

import torch

from harmofl.federated.messages import ServerState, Updates
from harmofl.federated.tensors import Arrays, moved_by, scaled
from harmofl.methods.parts.averages import Average

ROLL = "roll"
"""Server extra with the value that the share of each site that ever took part is proportional to."""


def over_all(
    average: Average, server: ServerState, group: str, updates: Updates, changes: Sequence[Arrays]
) -> dict[str, Arrays]:
    """Return the server's extra `group`, m <- m + sum_i p_i d_i with p_i among all N sites, and the roll.

    Args:
        average: the average that defines p_i.
        server: server state with the previous extras.
        group: name of the extra that is the mean m.
        updates: updates of this round's sites.
        changes: d_i of each update; an entry that is missing has not changed.
    """
    before = server.extras.get(ROLL, {})
    roll = {**before, **{u.site: torch.tensor(average.weight(u), dtype=torch.float64) for u in updates}}
    whole = _whole(roll, server.sites)
    mean = scaled(server.extras[group], _whole(before, server.sites) / whole)
    for update, change in zip(updates, changes, strict=True):
        mean = {**mean, **moved_by(mean, change, average.weight(update) / whole)}
    return {group: mean, ROLL: roll}


def _whole(roll: Mapping[str, torch.Tensor], sites: int) -> float:
    """Return the sum over all N sites of the values that shares are proportional to."""
    known = sum(map(float, roll.values()))
    return known * max(sites, len(roll)) / len(roll) if roll else 0.0
