"""A federation of real processes on this machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import forked
import patience
import pytest

from harmofl.deployment.creating import create
from harmofl.experiment.config import load_experiment
from harmofl.utils.child_processes import end_all_in

SITES = ("site-1", "site-2", "site-3")
SETTINGS = {
    "data.folder": "at-the-sites",
    "run.threads": 1,
    "network.name": "toys.shallow",
    "training.batch_size": 4,
    "training.lr": 0.01,
}
NVFLARE = pytest.param(
    "nvflare", marks=pytest.mark.skipif(find_spec("nvflare") is None, reason="needs NVFlare: harmofl[nvflare]")
)
_FLOWER = [
    pytest.mark.skipif(find_spec("flwr") is None, reason="needs Flower: pip install 'harmofl[flower]'"),
    pytest.mark.skipif(not shutil.which("nginx", path="/usr/sbin:/usr/bin"), reason="needs nginx"),
]
FLOWER = pytest.param("flower", marks=_FLOWER)
_MINUTES = pytest.mark.skipif(
    "HARMOFL_LONG_TESTS" not in os.environ, reason="takes minutes: `make test-engines` runs it"
)
FLOWER_LONG = pytest.param("flower", marks=[*_FLOWER, _MINUTES])
"""For tests of many rounds, each of which Flower begins with a process at every site."""

HARMOFL = "\nimport runpy\nrunpy.run_module('harmofl', run_name='__main__', alter_sys=True)"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Deployment:
    """Folders of a deployment, and the processes that were started from them; they end with the context.

    Attributes:
        before: code that a process runs before the command, by name.
        anew: whether processes are started as by a shell, and not as copies of one that has imported the package.
    """

    def __init__(
        self,
        folder: Path,
        data: Path,
        settings: dict[str, Any],
        engine: str = "nvflare",
        sites: Sequence[str] = SITES,
        **options: Any,
    ) -> None:
        self.folder, self.data, self.port, self.sites = folder, data, free_port(), tuple(sites)
        self.settings = SETTINGS | settings
        self.before: dict[str, str] = {}
        self.anew = False
        experiment = load_experiment(None, self.settings)
        if engine == "flower" and not options.get("attach"):
            options["listen"] = f"127.0.0.1:{self.port}"
        address = "" if options.get("attach") else f"localhost:{self.port}"
        create(folder, experiment, sites, address, engine=engine, **options)
        self.processes: dict[str, Any] = {}

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for name in self.processes:
            for place in ("nvflare", "flower", "flower/nginx"):
                end_all_in((self.folder / name / place).resolve())

    def start(self, name: str, *words: object) -> None:
        """The server, or a site; its output is added to NAME.log."""
        command = ["serve", self.folder / name] if name == "server" else ["join", self.folder / name]
        more = [] if name == "server" or "--data" in words else ["--data", self.data]
        python = ["-c", self.before[name] + HARMOFL] if name in self.before else ["-m", "harmofl"]
        line = [*python, "deploy", *map(str, (*command, *more, *words))]
        with self.log(name).open("a") as log:
            if self.anew:
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                self.processes[name] = subprocess.Popen(
                    [sys.executable, *line], stdout=log, stderr=log, env=environment
                )
            else:
                self.processes[name] = forked.start(*line, stdout=log, stderr=log)

    def start_all(self) -> None:
        for name in ("server", *self.sites):
            self.start(name)

    def kill(self, name: str) -> None:
        """As a power cut would."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def ended(self, name: str) -> int:
        """Its exit status."""
        process = self.processes[name]
        patience.until(
            lambda: process.poll() is not None, lambda: f"{name} should have ended:\n{self.all_said()}", at_ease=150
        )
        return int(process.returncode)

    def end_well(self) -> None:
        """Server and sites end by themselves, and say nothing of an error that nobody thought of."""
        for name in ("server", *self.sites):
            assert self.ended(name) == 0, self.said(name)
        self.no_traceback()

    def no_traceback(self) -> None:
        assert "Traceback" not in self.all_said()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str) -> str:
        return self.log(name).read_text() if self.log(name).exists() else ""

    def all_said(self) -> str:
        return "\n".join(f"{name}:\n{self.said(name)}" for name in ("server", *self.sites))

    def until(self, holds: Callable[[], object]) -> None:
        patience.until(holds, self.all_said)

    def rounds(self) -> int:
        path = self.folder / "server" / "run" / "rounds.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0
