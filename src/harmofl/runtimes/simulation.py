"""All sites in one process, one after the other: the reference that other runtimes are compared with."""

from collections.abc import Callable, Mapping, Sequence

from harmofl.data.site import Site
from harmofl.exchange import ClientState, ServerState
from harmofl.local import Training, run_client
from harmofl.method import Method
from harmofl.runtimes import Carried


def run_round(
    method: Method,
    server: ServerState,
    sites: Sequence[Site],
    states: Mapping[str, ClientState],
    training: Training,
    on_site: Callable[[str], None] = lambda site: None,
) -> Carried:
    """See `RunRound`."""
    broadcast = method.broadcast(server)
    updates, kept = [], dict[str, ClientState]()
    for site in sorted(sites, key=lambda site: site.name):
        update, kept[site.name] = run_client(method, site, broadcast, states.get(site.name, {}), training)
        updates.append(update)
        on_site(site.name)
    return method.aggregate(server, updates), kept, updates
