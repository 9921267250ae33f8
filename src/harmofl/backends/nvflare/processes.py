"""NVFlare's own processes at the server and at a site: started, watched, and started again when they end."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from harmofl.backends.nvflare.kits import ADMIN, JOB, KIT, keep_in
from harmofl.backends.nvflare.relay_job import VARIABLE
from harmofl.backends.relayed import RelayTransport
from harmofl.federated.relay import connect, send
from harmofl.utils.child_processes import end_with_parent

log = logging.getLogger("harmofl")
_TICK_S, _START_S, _LOST_S, _LATE_S, _SILENT_S, _LONGEST_S = 0.5, 60.0, 5.0, 15.0, 10.0, 300.0
"""Seconds between looks; for a job to begin; for a lost relay to come back; for all sites to connect before the
first job; that a site may be connected without a part in the job; at most between two renewals for one site."""


_REACHED = "Successfully registered client"
_SIGNS = {
    _REACHED: "connected to %s",
    "Failed to get_task from server": "%s: no answer from the server; trying again until it is there",
    "cannot forward": "%s: no answer from the server; trying again until it is there",
}
"""Parts of the lines that NVFlare's client prints, and what they mean."""


class KitProcess:
    """The process of a startup kit, which is started again whenever it ends, with growing pauses; a context manager.

    Args:
        kit: the startup kit.
        relay: file of the `RelayListener` for what NVFlare's jobs relay.
        on_line: called with each line that the process prints.
    """

    def __init__(self, kit: Path, relay: Path, on_line: Callable[[str], None] = lambda line: None) -> None:
        self._kit, self._relay, self._on_line = kit.resolve(), relay.resolve(), on_line
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
            path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
            self._process = subprocess.Popen(
                ["bash", str(self._kit / "startup" / "sub_start.sh"), "--once"],
                cwd=self._kit,
                env={**os.environ, "PATH": path, VARIABLE: str(self._relay)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
            self.starts += 1
            self._read(self._process.stdout)
            self._process.wait()
            pause = 1.0 if time.monotonic() - begin > 60 else min(2 * pause, 60.0)
            self._closed.wait(pause)

    def _read(self, lines: IO[str] | None) -> None:
        assert lines is not None
        with (self._kit.parent / "nvflare.log").open("a") as file:
            for line in lines:
                file.write(line)
                file.flush()
                self._on_line(line.strip())


class SiteProcess(KitProcess):
    """The process of a site's kit; logs when it has reached the server, and why it does not.

    Args:
        folder: folder of the site.
        relay: file of the `RelayListener` for what NVFlare's jobs relay.
        address: HOST:PORT of the server.
    """

    def __init__(self, folder: Path, relay: Path, address: str) -> None:
        super().__init__(folder / KIT, relay, self._tell)
        self._address, self._told, self.fault = address, "", ""

    def _tell(self, line: str) -> None:
        if "CERTIFICATE_VERIFY_FAILED" in line:
            self.fault = (
                f"{self._address}: the server's certificate must be for this address and signed by this federation's "
                "authority, but is not; use the folder that was made for this federation"
            )
            with suppress(OSError), connect(self._relay, 0) as door:
                send(door, {"kind": ""})
        for sign, said in _SIGNS.items():
            if sign in line and said != self._told:
                self._told = said
                log.log(logging.INFO if sign == _REACHED else logging.WARNING, said, self._address)


class ServerProcesses:
    """NVFlare's server and the job that relays; a context manager.

    The job is submitted anew if it ends, if the server was started again, and, between two rounds, for sites that have
    connected since it began, which NVFlare does not let into a running job.

    Args:
        folder: folder of the server, with kit, administrator's kit and job.
        relay: file of the transport's `RelayListener`.
        transport: the transport whose requests the job relays.
        sites: names of all sites.
    """

    def __init__(self, folder: Path, relay: Path, transport: RelayTransport, sites: frozenset[str]) -> None:
        self._folder, self._transport, self._sites = folder, transport, sites
        self._server = KitProcess(folder / KIT, relay)
        self._session = Session(folder / ADMIN)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._renewed: dict[str, tuple[float, float]] = {}
        self._silent: dict[str, float] = {}

    def __enter__(self) -> "ServerProcesses":
        keep_in(self._folder / KIT)
        self._server.__enter__()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed.set()
        self._thread.join(10)
        self._session.close()
        self._server.__exit__(kind, error, at)

    def _keep(self) -> None:
        job, starts, since, begun = "", 0, time.monotonic(), False
        while not self._closed.wait(_TICK_S):
            try:
                if starts != self._server.starts:
                    job, starts, since, begun = "", self._server.starts, time.monotonic(), False
                clients = self._sites & set(self._session.call(do="clients")["clients"])
                if self._transport.attached() and job:
                    since, begun = time.monotonic(), True
                    begin = self._due(clients)
                else:
                    patience = _LOST_S if begun else _START_S if job else 0 if clients == self._sites else _LATE_S
                    begin = bool(clients) and time.monotonic() - since > patience
                if begin:
                    if job:
                        with suppress(SessionError):
                            self._session.call(do="abort", job=job)
                    self._transport.detach()
                    job = str(self._session.call(do="submit", folder=str((self._folder / JOB).resolve()))["job"])
                    since, begun = time.monotonic(), False
            except SessionError as error:
                log.debug("NVFlare's server: %s", error)

    def _due(self, clients: frozenset[str]) -> bool:
        """Return True if it is time to renew the job for connected sites that are not in it."""
        now, there = time.monotonic(), self._transport.connected_before()
        for name in there:
            self._renewed.pop(name, None)
        self._silent = {name: self._silent.get(name, now) for name in clients - there}
        wanted = set()
        for name, since in self._silent.items():
            last, pause = self._renewed.get(name, (0.0, _SILENT_S))
            if now - since > _SILENT_S and now - last > pause:
                wanted.add(name)
        self._transport.hold(bool(wanted))
        if not wanted or self._transport.waiting() - self._silent.keys():
            return False
        for name in wanted:
            self._renewed[name] = now, min(2 * self._renewed.get(name, (0.0, _SILENT_S))[1], _LONGEST_S)
        log.info("%s: let into the run", ", ".join(sorted(wanted)))
        return True


class SessionError(Exception):
    """NVFlare's server does not answer its administrator."""


class Session:
    """Session of the administrator in a process of its own, which ends even if NVFlare's threads do not.

    Args:
        kit: the administrator's kit.
    """

    def __init__(self, kit: Path) -> None:
        self._kit = kit.resolve()
        self._process: subprocess.Popen[str] | None = None

    def call(self, **request: str) -> Mapping[str, Any]:
        """Return the answer to a request, see `harmofl.backends.nvflare.session`; raise SessionError if none comes."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harmofl.backends.nvflare.session", str(self._kit)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                preexec_fn=end_with_parent,
            )
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or '{"error": "the session has ended"}')
        except OSError as error:
            answer = {"error": str(error)}
        if "error" in answer:
            self.close()
            raise SessionError(answer["error"])
        return dict(answer)

    def close(self) -> None:
        """End the session."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
