"""All sites in one process, one after the other: the reference that other runtimes are compared with."""

from collections.abc import Callable, Mapping, Sequence

from harmofl.data.site import Site
from harmofl.exchange import ClientState, ClientUpdate, ServerState
from harmofl.local import Training, run_client
from harmofl.method import Method


def run_round(
    method: Method,
    server: ServerState,
    sites: Sequence[Site],
    states: Mapping[str, ClientState],
    training: Training,
    on_site: Callable[[str], None] = lambda site: None,
) -> tuple[ServerState, dict[str, ClientState], list[ClientUpdate]]:
    """One round with every site.

    Args:
        method: the federated learning method.
        server: the state before the round.
        sites: who takes part; the result does not depend on their order.
        states: what each site kept from its last round, by site name; some may be missing.
        training: how every site trains.
        on_site: called with a site's name when it has finished.

    Returns:
        The server's state after the round, what each of the sites keeps, and the updates, sorted by site.
    """
    broadcast = method.broadcast(server)
    updates, kept = [], dict[str, ClientState]()
    for site in sorted(sites, key=lambda site: site.name):
        update, kept[site.name] = run_client(method, site, broadcast, states.get(site.name, {}), training)
        updates.append(update)
        on_site(site.name)
    return method.aggregate(server, updates), kept, updates
