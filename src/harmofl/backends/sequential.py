"""Sequential backend: the sites in one process, one after the other; the reference for the other backends."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

from harmofl.backends.runner import RoundResult, Score, first_state
from harmofl.data.site import Site
from harmofl.federated.client import Training, run_client
from harmofl.federated.messages import ClientState, ServerState
from harmofl.federated.method import Method
from harmofl.federated.tensors import Arrays


def run_round(
    method: Method,
    server: ServerState,
    sites: Sequence[Site],
    states: Mapping[str, ClientState],
    training: Training,
    on_site: Callable[[str], None] = lambda site: None,
) -> RoundResult:
    """Run a round, see `RunRound`."""
    broadcast = method.broadcast(server)
    updates, kept = [], dict[str, ClientState]()
    first = cache(lambda: first_state(method, broadcast, states))
    for site in sorted(sites, key=lambda site: site.name):
        state = states[site.name] if site.name in states else first()
        update, kept[site.name] = run_client(method, site, broadcast, state, training)
        updates.append(update)
        on_site(site.name)
    return method.aggregate(server, updates), kept, updates


class Sequential:
    """Runs rounds and scores weights in this process, see `harmofl.backends.runner.Runner`.

    Args:
        score: scores weights at a site.
    """

    def __init__(self, score: Score) -> None:
        self._score = score
        self.run_round = run_round

    def scores(self, weights: Arrays, own: Mapping[str, Arrays], split: str) -> dict[str, dict[str, float]]:
        """Score one site after the other."""
        return {name: self._score(name, split, {**weights, **entries}) for name, entries in own.items()}
