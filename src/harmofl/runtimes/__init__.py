"""Who carries the messages between server and sites."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from harmofl.data.site import Site
from harmofl.exchange import ClientState, ClientUpdate, ServerState
from harmofl.local import Training
from harmofl.method import Method

Carried = tuple[ServerState, dict[str, ClientState], list[ClientUpdate]]
"""What a round gives: the server's state after it, what each of its sites keeps, and the updates, sorted by site."""


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
    ) -> Carried:
        """Carry it out.

        Args:
            method: the federated learning method.
            server: the state before the round.
            sites: who takes part; the result does not depend on their order.
            states: what each site kept from its last round, by site name; some may be missing.
            training: how every site trains.
            on_site: called with a site's name when it has finished.
        """
