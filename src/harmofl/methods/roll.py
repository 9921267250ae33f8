"""The sites that ever took part, for methods that average over all of them when only some do."""

from collections.abc import Sequence

import torch

from harmofl.arrays import Arrays
from harmofl.exchange import ClientUpdate, ServerState


def roll(server: ServerState, updates: Sequence[ClientUpdate]) -> Arrays:
    """The server's extras `roll` with the sites of this round: one entry a site, without content."""
    return {**server.extras.get("roll", {}), **{update.site: torch.ones(()) for update in updates}}
