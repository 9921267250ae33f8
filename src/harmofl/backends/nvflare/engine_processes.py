"""NVFlare's own processes at the server and at a site."""

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from harmofl.backends.nvflare.kits import ADMIN, JOB, KIT, VARIABLE, keep_in
from harmofl.backends.relayed import RelayTransport
from harmofl.backends.supervision import EngineError, KeptProcess, SiteProcess, Supervisor
from harmofl.errors import ConfigError
from harmofl.utils.child_processes import end_with_parent
from harmofl.utils.lazy_imports import optional

log = logging.getLogger("harmofl")
_LATE_S, _SILENT_S, _LONGEST_S = 15.0, 10.0, 300.0
"""Seconds for all sites to connect before the first job, that a site may be connected without a part in the job, and at
most between two renewals of the job for one site."""
_SIGNS = {
    "Successfully registered client": "connected to %s",
    "cannot forward": "%s: no answer from the server; trying again until it is there",
}
"""Parts of the lines that NVFlare's client prints, and what they mean."""


def _kept(folder: Path, relay: Path, on_line: Callable[[str], None] = lambda line: None) -> KeptProcess:
    """Return the process of the startup kit in a folder; its jobs find their relay by the environment.

    Raises:
        ConfigError: if the folder's path has characters that NVFlare's start script cannot read.
    """
    optional("nvflare", "a deployment with --engine nvflare", "nvflare")
    kit = (folder / KIT).resolve()
    if re.search(r"[^\w./@%+,=:-]", str(kit)):
        raise ConfigError(
            f"{kit}: the path must have no spaces and quotes, which NVFlare's start script cannot read; move the folder"
        )
    command = ["bash", str(kit / "startup" / "sub_start.sh"), "--once"]
    environment = {VARIABLE: str(relay.resolve()), "GRPC_VERBOSITY": "INFO"}  # which says why TLS fails
    return KeptProcess(command, folder / "nvflare.log", kit, environment, on_line)


class NVFlareClient(SiteProcess):
    """NVFlare's client at a site.

    Args:
        folder: folder of the site.
        relay: file of the `RelayListener` for what NVFlare's jobs relay.
        address: HOST:PORT of the server.
    """

    def __init__(self, folder: Path, relay: Path, address: str) -> None:
        super().__init__(lambda tell: _kept(folder, relay, tell), relay, address, _SIGNS)


class ServerProcesses(Supervisor):
    """NVFlare's server and the job that relays.

    The job is submitted anew if it ends, if the server was started again, and, between two rounds, for sites that have
    connected since it began, which NVFlare does not let into a running job.

    Args:
        folder: folder of the server, with kit, administrator's kit and job.
        relay: file of the transport's `RelayListener`.
        transport: the transport whose requests the job relays.
        sites: names of all sites.
    """

    def __init__(self, folder: Path, relay: Path, transport: RelayTransport, sites: frozenset[str]) -> None:
        keep_in(folder / KIT)
        super().__init__(_kept(folder, relay), transport)
        self._folder, self._sites = folder, sites
        self._session = Session(folder / ADMIN)
        self._renewed: dict[str, tuple[float, float]] = {}
        self._silent: dict[str, float] = {}

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, error, at)
        self._session.close()

    def prepare(self) -> None:
        """See `Supervisor`."""
        self._clients()

    def _clients(self) -> frozenset[str]:
        return self._sites & set(self._session.call(do="clients")["clients"])

    def ready(self, waited: float) -> bool:
        """See `Supervisor`: at first wait for all sites, since a job takes in no other."""
        clients = self._clients()
        return bool(clients) and (clients == self._sites or waited > _LATE_S)

    def submit(self) -> str:
        """See `Supervisor`."""
        return str(self._session.call(do="submit", folder=str((self._folder / JOB).resolve()))["job"])

    def abort(self, job: str) -> None:
        """See `Supervisor`."""
        self._session.call(do="abort", job=job)

    def outdated(self) -> bool:
        """Return True if it is time to renew the job for connected sites that are not in it."""
        now, there, clients = time.monotonic(), self._transport.connected_before(), self._clients()
        self._renewed = {name: value for name, value in self._renewed.items() if name not in there}
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


class Session:
    """Session of the administrator in a process of its own, which ends even if NVFlare's threads do not.

    Args:
        kit: the administrator's kit.
    """

    def __init__(self, kit: Path) -> None:
        self._kit = kit.resolve()
        self._process: subprocess.Popen[str] | None = None

    def call(self, **request: str) -> Mapping[str, Any]:
        """Return the answer to a request, see `harmofl.backends.nvflare.session`; raise EngineError if none comes."""
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
            raise EngineError(answer["error"])
        return dict(answer)

    def close(self) -> None:
        """End the session."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
