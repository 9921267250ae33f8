"""The sites that ever took part, for methods that average over all of them when only some do.

What such a method keeps at the server is a mean over them: when one joins, it is a mean over one more. A site that lost
what it keeps is the same site with a fresh start; the server's mean then stays off by what was lost.
"""

from collections.abc import Sequence

import torch

from harmofl.arrays import Arrays
from harmofl.exchange import ClientUpdate, ServerState


def roll(server: ServerState, updates: Sequence[ClientUpdate]) -> Arrays:
    """The server's extras `roll` with the sites of this round: one entry a site, without content."""
    return {**server.extras.get("roll", {}), **{update.site: torch.ones(()) for update in updates}}
