"""Requests to sites through a Flower grid, and the Flower app of a site that answers them."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from harmofl.backends.remote import DESCRIBE, EVALUATE, TRAIN, Reply
from harmofl.errors import ConfigError

try:
    from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid
except ImportError as error:
    raise ConfigError(f"Flower must be installed, but {error}; pip install 'harmofl[flower]'") from None

_RECORD, _ENTRY = "harmofl", "message"
GRACE_S = 60.0
"""Seconds that Flower keeps a message longer than its answer is waited for."""


class GridTransport:
    """Transport over a Flower grid, see `harmofl.backends.remote.Transport`.

    Args:
        grid: grid of the running ServerApp.
        nodes: Flower node of each site, by site name.
    """

    def __init__(self, grid: Grid, nodes: Mapping[str, int]) -> None:
        self._grid, self._nodes = grid, dict(nodes)

    def connected(self) -> Mapping[str, object]:
        """Return all sites: a grid does not tell when a node connects anew."""
        return dict.fromkeys(self._nodes)

    def ask(self, kind: str, content: bytes, sites: Sequence[str], timeout: float | None) -> Iterator[Reply]:
        """Send a request to sites and yield their replies, see `Transport`."""
        names = {self._nodes[site]: site for site in sites}
        record, ttl = to_record(content), timeout and timeout + GRACE_S
        messages = [Message(record, node, kind, ttl=ttl) for node in names]
        for reply in self._grid.send_and_receive(messages, timeout=timeout):
            site = names[reply.metadata.src_node_id]
            if reply.has_error():
                yield Reply(site, error=str(reply.error.reason))
            else:
                yield Reply(site, from_record(reply.content))


def client_app(answer: Callable[[str, bytes], bytes]) -> ClientApp:
    """Return the Flower app of a site.

    Args:
        answer: answers requests, see `harmofl.backends.remote.answering`.
    """
    app = ClientApp()

    def reply(message: Message, context: Context) -> Message:
        kind = message.metadata.message_type.partition(".")[0]
        return Message(to_record(answer(kind, from_record(message.content))), reply_to=message)

    for kind in (TRAIN, DESCRIBE, EVALUATE):
        getattr(app, kind)()(reply)
    return app


def to_record(content: bytes) -> RecordDict:
    """Return bytes as the content of a Flower message."""
    return RecordDict({_RECORD: ArrayRecord({_ENTRY: Array("uint8", (len(content),), _RECORD, content)})})


def from_record(content: RecordDict) -> bytes:
    """Undo `packed`; return nothing for any other content."""
    try:
        return bytes(content.array_records[_RECORD][_ENTRY].data)
    except KeyError:
        return b""
