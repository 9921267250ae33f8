"""Connection on one machine between a HarmoFL process, which listens, and an engine's process, which relays.

An engine starts and ends its own processes as it likes; what is slow to start or must not be lost stays in the
listening process. This file needs the standard library alone, so that relays start fast. Messages are JSON and bytes,
never pickle; socket and key are readable by their owner only.
"""

import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import TracebackType
from typing import Any

from harmofl.federated.transport import Transport

_PAUSE_S = 0.2
_PREFIX = "harmofl-"


class RelayListener:
    """Listens for relays at a new Unix socket, whose address and key it writes to a file; a context manager.

    Args:
        file: the file, which is replaced, and deleted at the end.

    Raises:
        OSError: if the file or the socket cannot be made.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._folder = file, Path(tempfile.mkdtemp(prefix=_PREFIX))  # a socket's path must be short
        address, key = str(self._folder / "relay"), secrets.token_bytes(32)
        self._listener = Listener(address, "AF_UNIX", backlog=16, authkey=key)
        with suppress(OSError, ValueError, KeyError):  # the folder of a process that was killed
            before = Path(json.loads(file.read_text())["address"]).parent
            if before.parent == self._folder.parent and before.name.startswith(_PREFIX):
                shutil.rmtree(before)
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            json.dump({"address": address, "key": key.hex(), "pid": os.getpid()}, opened)

    def __enter__(self) -> "RelayListener":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.unlink(missing_ok=True)
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def accept(self) -> Connection:
        """Wait for the next relay."""
        while True:
            try:
                return self._listener.accept()
            except (
                EOFError,
                ConnectionError,
                AuthenticationError,
            ):  # a stranger, or it was killed
                continue


def connect(file: Path, patience_s: float) -> Connection:
    """Connect to the process that listens at the `RelayListener` of a file.

    Raises:
        ConnectionError: if it does not listen within `patience_s` seconds.
    """
    end = time.monotonic() + patience_s
    while True:
        try:
            place = json.loads(file.read_text())
            return Client(place["address"], "AF_UNIX", authkey=bytes.fromhex(place["key"]))
        except (OSError, EOFError, ValueError, KeyError) as error:
            if time.monotonic() > end:
                raise ConnectionError(f"no HarmoFL process listens at {file.name} ({type(error).__name__})") from None
        time.sleep(_PAUSE_S)


def send(line: Connection, head: Mapping[str, Any], content: bytes = b"") -> None:
    """Send a message; raise OSError if the other end is gone."""
    line.send_bytes(json.dumps(dict(head)).encode())
    line.send_bytes(content)


def receive(line: Connection) -> tuple[dict[str, Any], bytes]:
    """Receive a message; raise EOFError or OSError if the other end is gone."""
    return json.loads(line.recv_bytes()), line.recv_bytes()


def relayed(file: Path, kind: str, content: bytes, patience_s: float = 60.0) -> bytes:
    """Return the answer of the site's process that listens at the `RelayListener` of a file.

    Raises:
        ConnectionError: if the process does not listen within `patience_s` seconds, or ends before it has answered.
    """
    with connect(file, patience_s) as line:
        try:
            send(line, {"kind": kind}, content)
            return receive(line)[1]
        except (EOFError, OSError):
            raise ConnectionError("this site's HarmoFL process ended before it had answered") from None


def relay(file: Path, transport: Transport, over: Callable[[], bool] = lambda: False) -> None:
    """Carry requests of the server's process, which listens at the `RelayListener` of a file, to sites until the end.

    It ends with the connection, and never connects again: the process may by then listen to another job's relay.

    Args:
        file: the file of the listener.
        transport: reaches the sites.
        over: returns True if the engine ends its job; what is then unanswered is left to the next job.

    Raises:
        ConnectionError: if the process does not listen within a minute.
    """
    with connect(file, 60.0) as line, suppress(EOFError, OSError):
        while not over():
            if line.poll(_PAUSE_S) and not _relayed_one(line, transport, over):
                return


def _relayed_one(line: Connection, transport: Transport, over: Callable[[], bool]) -> bool:
    """Carry one request; return False if it ends the run."""
    head, content = receive(line)
    if head["do"] == "end":
        return False
    if head["do"] == "connected":
        send(line, {"sites": dict(transport.connected())})
        return True
    for reply in transport.ask(head["kind"], content, head["sites"], head["timeout"]):
        about = {"site": reply.site, "error": reply.error, "sites": dict(transport.connected())}
        send(line, about, reply.content)
    if not over():
        send(line, {"done": True})
    return True


def listening(file: Path) -> str:
    """Return a value that names the process that listens at the `RelayListener` of a file; "" if there is none."""
    try:
        place = json.loads(file.read_text())
        os.kill(place["pid"], 0)
        return str(place["address"])
    except (OSError, ValueError, KeyError):
        return ""
