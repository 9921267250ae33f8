"""Types of backends on one machine: they run a round and score weights at its sites."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from harmofl.data.site import Site
from harmofl.federated.client import Training
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate, ServerState
from harmofl.federated.method import Method
from harmofl.federated.tensors import Arrays

RoundResult = tuple[ServerState, dict[str, ClientState], list[ClientUpdate]]
"""The server state after a round, the client state of each of its sites, and the updates, sorted by site."""


def first_state(method: Method, broadcast: Broadcast, states: Mapping[str, ClientState]) -> ClientState:
    """Return the client state for a site's first round: the mean of the personal weights of the other sites.

    A site that joins late under FedBN thus does not start from initial normalization layers. Where the other sites'
    states are not available, as between hospitals, it does.
    """
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
