"""The two ends of an engine that carries requests through relays: the server's transport, and a site that answers."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harmofl.federated.relay import RelayListener, receive, send
from harmofl.federated.transport import Reply
from harmofl.utils.atomic_files import storing

log = logging.getLogger("harmofl")
_LOOK_S, _QUICK_S = 0.05, 30.0


class RelayTransport:
    """Transport by whichever relay is connected to a listener, see `harmofl.federated.transport.Transport`.

    If the relay ends, as when the engine or its job is killed, sites that have not answered are asked by the next.

    Args:
        listener: where relays connect.
    """

    def __init__(self, listener: RelayListener) -> None:
        self._listener = listener
        self._line: Connection | None = None
        self._there = dict[str, object]()
        self._waiting, self._held = frozenset[str](), threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                line = self._listener.accept()
            except OSError:  # closed
                return
            self._line = line

    def connected(self) -> Mapping[str, object]:
        """Return the connected sites; none while no relay is connected."""
        line, self._there = self._line, {}
        try:
            if line is not None:
                send(line, {"do": "connected"})
                if not line.poll(_QUICK_S):
                    raise EOFError
                self._there = dict(receive(line)[0]["sites"])
        except (EOFError, OSError):
            self._drop(line)
        return self._there

    def ask(self, kind: str, content: bytes, sites: Sequence[str], timeout: float | None) -> Iterator[Reply]:
        """Send a request to sites and yield their replies."""
        end = float("inf") if timeout is None else time.monotonic() + timeout
        waiting, line = set(sites), None
        try:
            while waiting and (left := end - time.monotonic()) > 0:
                line = None if self._held.is_set() else self._line
                if line is None:
                    time.sleep(_LOOK_S)
                    continue
                try:
                    self._waiting = frozenset(waiting)
                    request = {"do": "ask", "kind": kind, "sites": sorted(waiting)}
                    send(line, {**request, "timeout": None if timeout is None else left}, content)
                    for head, answer in _replies(line, end):
                        self._there = dict(head["sites"])
                        if head["site"] in waiting:
                            waiting.discard(head["site"])
                            self._waiting = frozenset(waiting)
                            yield Reply(head["site"], answer, head["error"])
                    line = None
                    return
                except (EOFError, OSError):
                    self._drop(line)
                    line = None
        finally:
            self._waiting = frozenset()
            self._drop(line)  # whoever stopped listening: what still comes belongs to no request

    def attached(self) -> bool:
        """Return True if a relay is connected."""
        return self._line is not None

    def detach(self) -> None:
        """Forget the relay that is connected, as its job ends; the next one may ask."""
        self._line = None
        self._held.clear()

    def hold(self, held: bool) -> None:
        """Let the next request wait (True) for another relay, or no longer (False)."""
        (self._held.set if held else self._held.clear)()

    def waiting(self) -> frozenset[str]:
        """Return the sites that have not answered the current request; none between requests."""
        return self._waiting

    def connected_before(self) -> frozenset[str]:
        """Return the sites that were connected when that was last asked."""
        return frozenset(self._there)

    def _drop(self, line: Connection | None) -> None:
        """Close the connection to a relay."""
        if line is not None:
            line.close()
            self._line = None if self._line is line else self._line

    def end(self) -> None:
        """Tell the relay that the run is over."""
        if line := self._line:
            with suppress(OSError):
                send(line, {"do": "end"})


def _replies(line: Connection, end: float) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield head and content of each reply to a request, to the last; raise EOFError if the relay is silent."""
    while True:
        while not line.poll(1.0):
            if time.monotonic() > end + _QUICK_S:
                raise EOFError
        head, content = receive(line)
        if head.get("done"):
            return
        yield head, content


def listen(file: Path) -> RelayListener:
    """Listen for relays, see `RelayListener`; raise StorageError if its file cannot be written."""
    with storing(file):
        return RelayListener(file)


def answer_relays(listener: RelayListener, answer: Callable[[str, bytes], bytes], over: Callable[[], bool]) -> None:
    """Answer the requests that relays bring to a site until `over` returns True.

    Args:
        listener: where relays connect.
        answer: answers requests, see `harmofl.backends.answering`.
        over: called before and after each answer; may raise an error that ends the site.
    """
    while not over():
        with listener.accept() as line:
            try:
                head, content = receive(line)
                if not over():
                    send(line, {}, answer(str(head["kind"]), content))
            except (EOFError, OSError):  # the engine has ended its relay; it asks again
                log.info("the engine ended its relay before the answer was sent")
