"""Requests to sites through a Flower grid, and answers to them; imports no torch."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from harmofl.errors import ConfigError
from harmofl.federated.transport import Reply

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
    from flwr.serverapp import Grid
except ImportError as error:
    raise ConfigError(f"Flower must be installed, but {error}; pip install 'harmofl[flower]'") from None

_NAME, _RETRIES = "harmofl", 3
"""Name of the content of a message; number of times that a site whose connection fails is asked again."""
_LOOK_S, _RENEW_S, _AGAIN_S, AWAY_S, GRACE_S = 0.2, 1.0, 15.0, 60.0, 60.0
"""Seconds between checks for replies, between checks of who is connected, before a site whose connection failed is
asked again, for it to come back, and that Flower keeps a late message."""


class GridTransport:
    """Transport over a Flower grid, see `harmofl.federated.transport.Transport`; nodes are known by their public keys.

    Args:
        grid: grid of the running ServerApp.
        keys: public key of each site as Flower writes it (PEM), by site name.
    """

    def __init__(self, grid: Grid, keys: Mapping[str, str]) -> None:
        self._grid, self._nodes = grid, dict[str, int]()
        self._names = {key: name for name, key in keys.items()}
        self._seen, self._at = dict[str, object](), float("-inf")

    def connected(self) -> Mapping[str, object]:
        """Return the online nodes with a site's key, each with the time at which it connected."""
        if time.monotonic() - self._at > _RENEW_S:
            online = [node for node in self._grid.get_nodes() if node.status == "online"]
            named = {self._names.get(node.public_key.decode()): node for node in online}
            known = {name: node for name, node in named.items() if name}
            self._nodes |= {name: node.node_id for name, node in known.items()}
            self._seen = {name: node.last_activated_at for name, node in known.items()}
            self._at = time.monotonic()
        return self._seen

    def ask(self, kind: str, content: bytes, sites: Sequence[str], timeout: float | None) -> Iterator[Reply]:
        """Send a request to sites and yield their replies; a site that connects anew is asked again."""
        end = float("inf") if timeout is None else time.monotonic() + timeout
        record, ttl = to_record(content), timeout and timeout + GRACE_S
        since, waiting, left = self.connected(), dict[str, str](), dict.fromkeys(sites, _RETRIES)
        asking, away = [site for site in sites if site in self._nodes], time.monotonic() + AWAY_S
        lost = {site: (away, Reply(site, error="it is not connected")) for site in sites if site not in asking}
        while (asking or waiting or lost) and time.monotonic() < end:
            for site in asking:
                (name,) = self._grid.push_messages([Message(record, self._nodes[site], kind, ttl=ttl)])
                waiting[name] = site
            for message in self._grid.pull_messages(list(waiting)):
                site = waiting.pop(message.metadata.reply_to_message_id)
                reply = reply_of(site, message)
                if not reply.error or not left[site]:
                    yield reply
                else:
                    lost[site], left[site] = (time.monotonic() + AWAY_S, reply), left[site] - 1
            now = self.connected()
            anew = {name for name, site in waiting.items() if site in now and now[site] != since.get(site)}
            asking = [waiting.pop(name) for name in anew] + [
                site
                for site, (until, _) in lost.items()
                if site in now and (now[site] != since.get(site) or until - time.monotonic() < AWAY_S - _AGAIN_S)
            ]
            over = [site for site, (until, _) in lost.items() if time.monotonic() > until]
            for site in over:
                yield lost[site][1]
            lost = {site: value for site, value in lost.items() if site not in asking and site not in over}
            since = {**since, **now}
            if not asking and (waiting or lost):
                time.sleep(_LOOK_S)


def reply_of(site: str, message: Message) -> Reply:
    """Return the reply of a site in a Flower message."""
    if message.has_error():
        return Reply(site, error=str(message.error.reason))
    if _NAME in message.content.config_records:
        return Reply(site, error=str(message.content.config_records[_NAME].get("error")))
    return Reply(site, from_record(message.content))


def answered(message: Message, answer: Callable[[str, bytes], bytes]) -> Message:
    """Return the reply to a message, with the answer or the ConnectionError that `answer` raised."""
    kind = message.metadata.message_type.partition(".")[0]
    try:
        content = to_record(answer(kind, from_record(message.content)))
    except ConnectionError as error:
        content = RecordDict({_NAME: ConfigRecord({"error": str(error)})})
    return Message(content, reply_to=message)


def to_record(content: bytes) -> RecordDict:
    """Return bytes as the content of a Flower message."""
    return RecordDict({_NAME: ArrayRecord({_NAME: Array("uint8", (len(content),), _NAME, content)})})


def from_record(content: RecordDict) -> bytes:
    """Undo `to_record`; return nothing for any other content."""
    try:
        return bytes(content.array_records[_NAME][_NAME].data)
    except KeyError:
        return b""
