"""HTTP server of the report of a run during training."""

import json
import re
import statistics
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from harmofl.errors import ConfigError, HarmoFLError
from harmofl.experiment.finished_run import Run, load_runs
from harmofl.report import vega
from harmofl.report.run_page import compose, render_run_page
from harmofl.report.scores import duration, estimated_end
from harmofl.report.templates import template_of
from harmofl.utils.atomic_files import is_locked
from harmofl.utils.shell import quoted

QUIET = 5
"""Multiple of the usual round time (at least a minute) without news after which the status says so."""
Answer = tuple[HTTPStatus, str, str]


class Watched:
    """Progress and current report of the run in a folder.

    Args:
        folder: the run folder, which may not exist yet.
        clock: returns the seconds since the epoch.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock
        self._lock = Lock()
        self._shown = ("", "")  # stamp, page

    @property
    def stamp(self) -> str:
        """A string that changes with the contents of the run folder; "" before the run begins."""
        found = []
        for name in ("rounds.jsonl", "diagnostics.jsonl", "result.json"):
            path = self.folder / name
            if path.exists():
                stat = path.stat()
                found.append(f"{name} {stat.st_size} {stat.st_mtime_ns}")
        return "; ".join(found) if (self.folder / "config.toml").exists() else ""

    def status(self) -> dict[str, Any]:
        """Return stamp and progress in words; `reload` is true if the browser must reload the whole page."""
        finished = (self.folder / "result.json").exists()
        return {"stamp": self.stamp, "text": self.text(), "reload": finished}

    def text(self) -> str:
        """Return the progress of the run in a sentence."""
        if not self.stamp:
            return f"waiting for a run in {self.folder}; none has begun there yet"
        try:
            return self._progress(load_runs([self.folder])[0])
        except HarmoFLError as error:
            return str(error)

    def _progress(self, run: Run) -> str:
        done, table = len(run.rounds), run.config.get("training")
        total = int(table["rounds"]) if isinstance(table, dict) and "rounds" in table else done
        if run.result:
            return f"finished: {run.result.rounds} rounds, model of round {run.result.chosen_round} chosen"
        if not is_locked(self.folder):
            fix = f"continue with harmofl run --resume {quoted(self.folder)}"
            return f"not training: {done} of {total} rounds are done; {fix}"
        if not done:
            return f"training: round 1 of {total}; the end can be estimated after this round"
        if done >= total:
            return f"all {total} rounds are done; the chosen model is being tested"
        usual = statistics.median(line.seconds for line in run.rounds)
        since = self._clock() - (self.folder / "rounds.jsonl").stat().st_mtime
        if since > max(60.0, QUIET * usual):
            pace = f"no update for {duration(since)}, although a round usually takes {duration(usual)}"
            return f"training: round {done + 1} of {total}; {pace}"
        left = max(0.0, usual * (total - done) - since)
        return f"training: round {done + 1} of {total}, ends {estimated_end(self._clock(), left)}"

    def page(self) -> str:
        """Return the report, or a waiting page before the run begins."""
        with self._lock:
            stamp = self.stamp
            if not stamp or stamp != self._shown[0]:
                self._shown = (stamp, self._render(stamp))
            return self._shown[1]

    def _render(self, stamp: str) -> str:
        try:
            if stamp:
                return render_run_page(compose(load_runs([self.folder])), (stamp, self.text()))
        except HarmoFLError:
            pass  # the status line shows it; a half-written file is complete at the next request
        scripts = [vega.script(), vega.starter(), vega.starter("watch.js")]
        return template_of("watch.html").render(title=self.folder.name, watched=(stamp, self.text()), scripts=scripts)

    def answer(self, path: str) -> Answer:
        """Return the response for a path."""
        if path in ("/", "/page"):
            return HTTPStatus.OK, "text/html; charset=utf-8", self.page()
        if path == "/status":
            return HTTPStatus.OK, "application/json", json.dumps(self.status())
        return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", "there is no such page; open /\n"


def server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """Return an HTTP server of the report; it answers only GET and, if bound to localhost, only local host names.

    Raises:
        ConfigError: if the address cannot be used.
    """
    watched = Watched(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not _meant(self.headers.get("Host", ""), host):
                self._send(
                    (
                        HTTPStatus.FORBIDDEN,
                        "text/plain; charset=utf-8",
                        f"the Host header must name {host}; open the page under this name\n",
                    )
                )
                return
            self._send(watched.answer(self.path.partition("?")[0]))

        def _send(self, answer: Answer) -> None:
            status, kind, text = answer
            body = text.encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": kind,
                "Content-Length": str(len(body)),
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "X-Frame-Options": "DENY",
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log no requests; a page that polls every few seconds would fill the terminal."""

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{host}:{port}: the address must be free, but cannot be used ({reason}); choose another --host or --port"
        ) from error


def _meant(named: str, host: str) -> bool:
    """Return True unless the server is bound to localhost and the Host header names another host (DNS rebinding)."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        return True
    return re.sub(r":\d+$", "", named).strip("[]") in ("127.0.0.1", "localhost", "::1")
