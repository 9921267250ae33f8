"""Sequential backend: the sites in one process, one after the other; the reference for the other backends."""

from collections.abc import Callable, Mapping, Sequence

from harmofl.backends.runner import KeepState, Results, RoundResult, Score, first_state
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
    keep: KeepState | None = None,
) -> RoundResult:
    """Run a round, see `RunRound`."""
    broadcast = method.broadcast(server)
    results = Results(method, server, sites, keep)
    first = first_state(method, broadcast, sites, states)
    for site in sorted(sites, key=lambda site: site.name):
        results.add(*run_client(method, site, broadcast, states.get(site.name, first), training))
        on_site(site.name)
    return results.round()


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
