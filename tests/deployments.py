"""A federation of real processes on this machine."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import patience

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
        self, folder: Path, data: Path, settings: dict[str, Any], host: str = "localhost", **options: Any
    ) -> None:
        self.folder, self.data, self.port = folder, data, free_port()
        self.settings = SETTINGS | settings
        self.before: dict[str, str] = {}
        self.anew = False
        experiment = load_experiment(None, self.settings)
        listen = options if options.get("engine") == "nvflare" else {"listen": f"127.0.0.1:{self.port}", **options}
        create(folder, experiment, SITES, f"{host}:{self.port}", **listen)
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
        more = [] if name == "server" else ["--data", self.data]
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
        for name in ("server", *SITES):
            self.start(name)

    def kill(self, name: str) -> None:
        """As a power cut would."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def ended(self, name: str) -> int:
        """Its exit status."""
        process = self.processes[name]
        patience.until(lambda: process.poll() is not None, lambda: f"{name} should have ended:\n{self.all_said()}")
        return int(process.returncode)

    def end_well(self) -> None:
        """Server and sites end by themselves, and say nothing of an error that nobody thought of."""
        for name in ("server", *SITES):
            assert self.ended(name) == 0, self.said(name)
        self.no_traceback()

    def no_traceback(self) -> None:
        assert "Traceback" not in self.all_said()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str) -> str:
        return self.log(name).read_text() if self.log(name).exists() else ""

    def all_said(self) -> str:
        return "\n".join(f"{name}:\n{self.said(name)}" for name in ("server", *SITES))

    def until(self, holds: Callable[[], object]) -> None:
        patience.until(holds, self.all_said)

    def proxied(self, folder: Path, server: str, inner: int) -> list[str]:
        """The command of an nginx set up as the docs say; the server's folder is made to serve in the clear."""
        page = (Path(__file__).parent.parent / "docs" / "deploy.md").read_text()
        toml = self.folder / "server" / "server.toml"
        text = toml.read_text().replace(f"127.0.0.1:{self.port}", f"{server}:{inner}")
        toml.write_text(text.replace("insecure = false", "insecure = true"))
        block = page.split("```nginx\n")[1].split("```")[0].replace("9443", str(self.port))
        block = block.replace("/etc/harmofl", str(self.folder / "server")).replace(
            "127.0.0.1:9092", f"{server}:{inner}"
        )
        names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{name}_temp_path {folder}/{name};" for name in names)
        config = folder / "nginx.conf"
        config.write_text(
            f"daemon off; pid {folder}/pid; error_log {folder}/error; events {{}}\n"
            f"http {{ access_log off; {temporary} {block} }}"
        )
        return ["nginx", "-c", str(config)]

    def rounds(self) -> int:
        path = self.folder / "server" / "run" / "rounds.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0
