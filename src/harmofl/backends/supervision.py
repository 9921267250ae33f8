"""Supervision of an engine's processes: they are started again when they end, and so is the job that relays."""

import logging
import os
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from harmofl.backends.relayed import RelayTransport
from harmofl.federated.relay import connect, send
from harmofl.utils.child_processes import end_all_in, end_with_parent

log = logging.getLogger("harmofl")
_TICK_S, _START_S, _LOST_S = 1.0, 60.0, 5.0
"""Seconds between looks, for a job to begin, and for a lost relay to come back."""


class EngineError(Exception):
    """The engine does not answer, or refuses a request."""


class KeptProcess:
    """A process that is started again whenever it ends, with growing pauses; a context manager.

    Args:
        command: program and arguments.
        log_file: what it prints is appended to this file.
        folder: its working directory, for it and its children alone.
        environment: variables beside those of this process.
        on_line: called with each line that it prints.

    Attributes:
        starts: number of times that it was started.
    """

    def __init__(
        self,
        command: Sequence[str],
        log_file: Path,
        folder: Path,
        environment: Mapping[str, str],
        on_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._command, self._log, self._folder, self._on_line = list(command), log_file, folder.resolve(), on_line
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        self._environment = {**os.environ, "PATH": path, **environment}
        self._process: subprocess.Popen[str] | None = None
        self._closed = threading.Event()
        self.starts = 0
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed.set()
        if self._process:
            self._process.terminate()
        self._thread.join(10)

    def _keep(self) -> None:
        pause = 1.0
        while not self._closed.is_set():
            begin = time.monotonic()
            end_all_in(self._folder)  # what an earlier process that was killed has left
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
            self.starts += 1
            threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
            self._process.wait()
            pause = 1.0 if time.monotonic() - begin > 60 else min(2 * pause, 60.0)
            self._closed.wait(pause)

    def _read(self, lines: IO[str]) -> None:
        """Log what the process prints, and its children, which may outlast it; on a full disk, only say that it is."""
        told = ""
        with lines:
            for line in lines:
                try:
                    with self._log.open("a") as file:
                        file.write(line)
                    told = ""
                except OSError as error:
                    fault = f"{self._log}: must be writable, but: {error.strerror}; make room, and it goes on"
                    if told != fault:
                        log.warning(fault)
                        told = fault
                self._on_line(line.strip())


class Supervisor(ABC):
    """Keeps an engine's server and the job that relays alive; a context manager.

    Args:
        server: the engine's server.
        transport: the transport whose requests the job relays.
    """

    def __init__(self, server: KeptProcess, transport: RelayTransport) -> None:
        self._server, self._transport = server, transport
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        self._server.__enter__()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed.set()
        self._thread.join(10)
        self._server.__exit__(kind, error, at)

    @abstractmethod
    def prepare(self) -> None:
        """Do what must be done once after each start of the server; raise EngineError if it does not answer yet."""

    @abstractmethod
    def ready(self, waited: float) -> bool:
        """Return True if a job may begin, `waited` seconds after it could first have."""

    @abstractmethod
    def submit(self) -> str:
        """Begin a job and return its name."""

    @abstractmethod
    def abort(self, job: str) -> None:
        """End a job."""

    def outdated(self) -> bool:
        """Return True if a running job should make room for another one."""
        return False

    def _keep(self) -> None:
        job, begun, starts, since = "", False, 0, time.monotonic()
        while not self._closed.wait(_TICK_S):
            try:
                if starts != (now := self._server.starts):
                    self.prepare()
                    job, begun, starts, since = "", False, now, time.monotonic()
                if job and self._transport.attached():
                    begun, since = True, time.monotonic()
                    due = self.outdated()
                else:
                    waited = time.monotonic() - since
                    due = waited > (_LOST_S if begun else _START_S) if job else self.ready(waited)
                if not due:
                    continue
                if job:
                    with suppress(EngineError):
                        self.abort(job)
                self._transport.detach()
                job, begun, since = self.submit(), False, time.monotonic()
            except EngineError as error:
                log.debug("the engine: %s", error)


class SiteProcess:
    """An engine's process at a site, a context manager; logs when it has reached the server, and why it does not.

    Args:
        process: makes the process, given what is called with each line that it prints.
        relay: file of the `RelayListener` at which the site's own process answers.
        address: HOST:PORT of the server.
        signs: parts of lines, and what they mean; `%s` is the address.

    Attributes:
        fault: why the site cannot take part; "" if it can.
    """

    def __init__(
        self,
        process: Callable[[Callable[[str], None]], KeptProcess],
        relay: Path,
        address: str,
        signs: Mapping[str, str],
    ) -> None:
        self._relay, self._address, self._signs, self._told, self.fault = relay, address, signs, "", ""
        self._process = process(self._tell)

    def __enter__(self) -> Self:
        log.info("connecting to %s", self._address)
        self._process.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.__exit__(kind, error, at)

    def _tell(self, line: str) -> None:
        if "certificate_verify_failed" in line.lower().replace(" ", "_"):
            self.fault = (
                f"{self._address}: the server's certificate must be for this address and signed by this federation's "
                "authority, but is not; use the folder that was made for this federation"
            )
            with suppress(OSError), connect(self._relay, 0) as door:  # so that it looks up
                send(door, {"kind": ""})
        for sign, said in self._signs.items():
            if sign in line and said != self._told:
                self._told = said
                log.info(said, self._address)
