"""Common amplitude of HarmoFL's Algorithm 1, also if only some sites take part in a round.

Each site sends its own amplitude (Eq 3) once: with its weights in round 1, before there is a common one; later as an
extra, learnt beside the common one in the site's first round. The common amplitude is always the average over the
sites that have sent theirs, and final when all N have. The server does not wait for a site that never takes part: it
has no share.
"""

import torch

from harmofl.federated.messages import LATE, Extras, ServerState, Updates
from harmofl.federated.model import AMPLITUDE, FROZEN
from harmofl.federated.tensors import Arrays
from harmofl.methods.parts.averages import Average, check_complete

COLLECTING = COLLECTED, WEIGHTS = "amplitudes", "amplitude weights"
"""The server's extras: the amplitude that each site sent, and the value that its share is proportional to."""


def collected(average: Average, server: ServerState, updates: Updates) -> tuple[Arrays, Extras]:
    """Return the common amplitude's entries, if they change, and the extras with the sites' ones until it is final."""
    known, weights = (dict(server.extras.get(group, {})) for group in (COLLECTED, WEIGHTS))
    final = bool(server.weights.get(FROZEN, False)) and not known
    for update in [] if final else updates:
        own = {**update.weights, **update.extras.get(LATE.name, {})}
        if AMPLITUDE in own and update.site not in known:
            known[update.site] = own[AMPLITUDE]
            weights[update.site] = torch.tensor(average.weight(update), dtype=torch.float64)
    if len(known) == len(server.extras.get(COLLECTED, {})):
        return {}, {group: server.extras[group] for group in (COLLECTED, WEIGHTS) if known}
    total = sum(map(float, weights.values()))
    sites = sorted(known)
    shares = [float(weights[site]) / total for site in sites]
    entries = [{AMPLITUDE: known[site]} for site in sites]
    common = average(entries, shares, server.weights, ())
    check_complete(average, common, entries[0])
    complete = 0 < server.sites <= len(known)
    return {**common, FROZEN: torch.tensor(True)}, {} if complete else {COLLECTED: known, WEIGHTS: weights}
