"""Messages with weights to sites on other machines: changes of the weights, if all of the sites can complete them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from harmofl.federated.downlink import FROM, TO, as_change, base_of, digest
from harmofl.federated.messages import Broadcast, ServerState
from harmofl.federated.transport import Reply, Transport
from harmofl.federated.wire import Scalars, pack, pack_broadcast

MISSING = pack({"missing": "weights"})
"""The answer of a site that lacks the weights to which a change is to be added."""


class Downloads:
    """Knows which weights each site received last; lasts as long as the server's process.

    A message goes to all sites as a change only if all of them hold the weights to which it is added; a site that does
    not, as one that was just restarted, says so and is sent all.

    Args:
        transport: connection to the sites.

    Attributes:
        bytes: bytes of the tensors of the last message, to all sites together.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._held = dict[str, tuple[object, str]]()
        self.bytes = 0

    def ask(
        self,
        kind: str,
        broadcast: Broadcast,
        head: Scalars,
        sites: Sequence[str],
        timeout: float | None,
        server: ServerState | None = None,
    ) -> Iterator[Reply]:
        """Send a broadcast to sites and yield their replies, see `Transport.ask`; with `server`, as its change."""
        there, to, self.bytes = self._transport.connected(), digest(broadcast.weights), 0
        head = {**head, TO: to}
        end = None if timeout is None else time.monotonic() + timeout
        base = "" if server is None else base_of(server)
        sent = partial(self._transport.ask, kind)
        if server and base and self._hold(sites, there, (base, to)):
            change, lacking = as_change(broadcast, server), list[str]()
            self.bytes += len(sites) * change.num_bytes()
            replies = sent(pack_broadcast(change, {**head, FROM: base}), sites, timeout)
            for reply in self._noted(replies, there, to):
                if reply.content == MISSING:
                    lacking.append(reply.site)
                else:
                    yield reply
            sites = lacking
        if sites:
            left = None if end is None else max(end - time.monotonic(), 0.0)
            self.bytes += len(sites) * broadcast.num_bytes()
            yield from self._noted(sent(pack_broadcast(broadcast, head), sites, left), there, to)

    def _hold(self, sites: Sequence[str], there: Mapping[str, object], either: tuple[str, str]) -> bool:
        """Return True if each site received one of these weights over the connection that it has now."""
        return all(self._held.get(site) in [(there.get(site, ""), found) for found in either] for site in sites)

    def _noted(self, replies: Iterator[Reply], there: Mapping[str, object], to: str) -> Iterator[Reply]:
        """Yield replies to weights of digest `to`, which the sites that answer then hold."""
        for reply in replies:
            if reply.content and reply.content != MISSING:
                self._held[reply.site] = there.get(reply.site), to
            yield reply
