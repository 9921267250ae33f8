"""Types of backends on one machine: they run a round and score weights at its sites."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from harmofl.data.site import Site
from harmofl.federated.client import Training
from harmofl.federated.gathering import Gathering
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate, ServerState
from harmofl.federated.method import Method
from harmofl.federated.tensors import Arrays

RoundResult = tuple[ServerState, dict[str, ClientState], list[ClientUpdate]]
"""The server state after a round, the client state of each of its sites, and the updates, sorted by site."""
KeepState = Callable[[str, ClientState], None]
"""Function that stores the new client state of a site."""


class Results:
    """The results of a round's sites, added in the order of their names.

    Args:
        method: the federated learning method.
        server: the server state before the round.
        sites: the participating sites.
        keep: stores each client state as it comes; states and the tensors of the updates are then not held here, except
            those that the method's average needs together. None holds them all.
    """

    def __init__(self, method: Method, server: ServerState, sites: Sequence[Site], keep: KeepState | None) -> None:
        images = {site.name: len(site.train) for site in sites}
        self._gathering = Gathering(method, server, images, whole=keep is None)
        self._states: dict[str, ClientState] = {}
        self._keep = keep or self._states.__setitem__

    def add(self, update: ClientUpdate, state: ClientState) -> None:
        """Add the results of the next site."""
        self._gathering.add(update)
        self._keep(update.site, state)

    def round(self) -> RoundResult:
        """Return the result of the round."""
        return self._gathering.aggregated(), self._states, self._gathering.updates


def first_state(
    method: Method, broadcast: Broadcast, sites: Sequence[Site], states: Mapping[str, ClientState]
) -> ClientState:
    """Return the client state for a site's first round: the mean of the personal weights of the other sites.

    A site that joins late under FedBN thus does not start from initial normalization layers. Where the other sites'
    states are not available, as between hospitals, it does. Empty if all `sites` of the round have a state.
    """
    if all(site.name in states for site in sites):
        return {}
    if not any(method.personal_weights(state) for state in islice(states.values(), 1)):
        return {}
    start = method.weights_for_new_site(
        broadcast.weights, [method.personal_weights(state) for state in states.values()]
    )
    own = {name: value for name, value in start.items() if value is not broadcast.weights[name]}
    return {"weights": own} if own else {}


class RunRound(Protocol):
    """Function that runs one round of a method."""

    def __call__(
        self,
        method: Method,
        server: ServerState,
        sites: Sequence[Site],
        states: Mapping[str, ClientState],
        training: Training,
        on_site: Callable[[str], Any] = ...,
        keep: KeepState | None = ...,
        /,
    ) -> RoundResult:
        """Run the round.

        Args:
            method: the federated learning method.
            server: the server state before the round.
            sites: the participating sites; the result does not depend on their order.
            states: the client states after each site's last round, by site name; some may be missing.
            training: the training settings of every site.
            on_site: called with a site's name when it has finished.
            keep: see `Results`; may change `states`.
        """


Score = Callable[[str, str, Arrays], dict[str, float]]
"""Function that scores weights on a split of a site: (site, split, weights) -> score by metric."""


class Runner(Protocol):
    """Runs rounds and scores weights at sites on this machine."""

    @property
    def run_round(self) -> RunRound:
        """The function that runs a round."""

    def scores(self, weights: Arrays, own: Mapping[str, Arrays], split: str) -> dict[str, dict[str, float]]:
        """Return the scores of every site.

        Args:
            weights: the global weights.
            own: by site, the entries that it uses in their place.
            split: "train", "val" or "test".
        """
