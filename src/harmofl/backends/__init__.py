"""Who carries the messages between server and sites."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from harmofl.data.site import Site
from harmofl.federated.client import Training
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate, ServerState
from harmofl.federated.method import Method

RoundResult = tuple[ServerState, dict[str, ClientState], list[ClientUpdate]]
"""What a round gives: the server's state after it, what each of its sites keeps, and the updates, sorted by site."""


def first_state(method: Method, broadcast: Broadcast, states: Mapping[str, ClientState]) -> ClientState:
    """What a site begins with that takes part for the first time: of what others keep to themselves, their mean.

    So a site that joins late under FedBN does not start from initial normalization layers. Where the others' state is
    out of reach, as between hospitals, it does.
    """
    if not any(method.personal_weights(state) for state in islice(states.values(), 1)):
        return {}
    start = method.weights_for_new_site(
        broadcast.weights, [method.personal_weights(state) for state in states.values()]
    )
    own = {name: value for name, value in start.items() if value is not broadcast.weights[name]}
    return {"weights": own} if own else {}


class RunRound(Protocol):
    """One round of a method."""

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
        """Carry it out.

        Args:
            method: the federated learning method.
            server: the state before the round.
            sites: who takes part; the result does not depend on their order.
            states: what each site kept from its last round, by site name; some may be missing.
            training: how every site trains.
            on_site: called with a site's name when it has finished.
        """
