"""A federation of real processes on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harmofl.config import load_experiment
from harmofl.deployment.creating import create

SITES = ("site-1", "site-2", "site-3")
SETTINGS = {
    "data.folder": "at-the-sites",
    "run.threads": 1,
    "network.options": {"features": 2},
    "training.batch_size": 4,
    "training.lr": 0.01,
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Deployment:
    """Folders of a deployment, and the processes that were started from them; they end with the context."""

    def __init__(
        self, folder: Path, data: Path, settings: dict[str, Any], host: str = "localhost", **options: Any
    ) -> None:
        self.folder, self.data, self.port = folder, data, free_port()
        self.settings = SETTINGS | settings
        self.before: dict[str, list[str]] = {}
        experiment = load_experiment(None, self.settings)
        listen = {"listen": f"127.0.0.1:{self.port}", **options}
        create(folder, experiment, SITES, f"{host}:{self.port}", **listen)
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def start(self, name: str, *words: object) -> None:
        """The server, or a site; its output is added to NAME.log."""
        command = ["serve", self.folder / name] if name == "server" else ["join", self.folder / name]
        more = [] if name == "server" else ["--data", self.data]
        with self.log(name).open("a") as log:
            self.processes[name] = subprocess.Popen(
                [
                    *self.before.get(name, [sys.executable, "-m", "harmofl"]),
                    "deploy",
                    *map(str, (*command, *more, *words)),
                ],
                stdout=log,
                stderr=log,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def start_all(self) -> None:
        for name in ("server", *SITES):
            self.start(name)

    def kill(self, name: str) -> None:
        """As a power cut would."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def ended(self, name: str, within: float = 120) -> int:
        """Its exit status."""
        try:
            return self.processes[name].wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{name} should have ended:\n{self.said('server')}\n{self.said(name)}") from None

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str) -> str:
        return self.log(name).read_text() if self.log(name).exists() else ""

    def until(self, holds: Callable[[], bool], within: float = 120) -> None:
        end = time.monotonic() + within
        while not holds():
            assert time.monotonic() < end, "\n".join(f"{name}:\n{self.said(name)}" for name in ("server", *SITES))
            time.sleep(0.05)

    def proxied(self, folder: Path, server: str, inner: int) -> list[str]:
        """The command of an nginx set up as the docs say; the server's folder is made to serve in the clear."""
        page = (Path(__file__).parent.parent / "docs" / "flower.md").read_text()
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
