"""Python processes that need not import anything: copies of one process that has imported the package.

`start` and `run` take the words of `python -m MODULE ...` or `python -c CODE ...`. What they start is a process of its
own with its own number, output, environment and folder, that is sent signals and waited for as any child is. Where
the system cannot hand processes over to this one (not Linux), it is started anew. That a true start works as well is
shown by the tests that use `subprocess`.
"""

import atexit
import builtins
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import IO, Any

PRELOADED = (
    *("torch", "torch._dynamo", "torch.distributed.rpc", "torch.utils.flop_counter", "httpcore", "h11"),
    *("anyio._backends._asyncio", "uvicorn.protocols.http.h11_impl", "uvicorn.loops.auto", "encodings.utf_8_sig"),
    *("scipy.stats", "sklearn.linear_model", "matplotlib.pyplot", "matplotlib.backends.backend_agg"),
    *(
        "harmofl.cli.main",
        "harmofl.experiment.trainer",
        "harmofl.report",
        "harmofl.inference.export",
        "harmofl.inference.prediction",
    ),
    *(
        "harmofl.inference.prediction.predict",
        "harmofl.inference.serving",
        "harmofl.inference.serving.service",
        "harmofl.analysis.site_shift",
        "harmofl.analysis.site_shift.probe_model",
    ),
    *(
        "harmofl.comparison.study",
        "harmofl.comparison.comparison_page",
        "harmofl.comparison.sweep",
        "harmofl.experiment.cost_estimate",
    ),
    *("harmofl.deployment.server", "harmofl.deployment.site_client", "harmofl.deployment.status"),
    *("harmofl.report.console", "harmofl.report.dashboard", "harmofl.experiment.trackers"),
)
SUBREAPER = 36  # prctl.h
LARGEST = 1 << 18  # of a job in bytes


class Forked:
    """A process that was started; as `subprocess.Popen`."""

    def __init__(self, words: list[str], pid: int) -> None:
        self.args, self.pid = words, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def start(
    *words: object, stdout: IO[Any], stderr: IO[Any], cwd: Path | None = None, **changes: str
) -> "Forked | subprocess.Popen[bytes]":
    """`python WORDS`, with its output in these files; changes are to the environment."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **changes}
    texts = [str(word) for word in words]
    if not sys.platform.startswith("linux"):
        return subprocess.Popen([sys.executable, *texts], stdout=stdout, stderr=stderr, cwd=cwd, env=environment)
    job = {"words": texts, "cwd": str(cwd or Path.cwd()), "environment": environment}
    line = _server()
    socket.send_fds(line, [json.dumps(job).encode()], [stdout.fileno(), stderr.fileno()])
    answer = line.recv(100)
    assert answer, "the process that is copied has ended"
    return Forked(texts, int(answer))


def run(*words: object, cwd: Path | None = None, **changes: str) -> "subprocess.CompletedProcess[str]":
    """`python WORDS` to its end."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(*words, stdout=out, stderr=err, cwd=cwd, **changes)
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        out.seek(0), err.seek(0)
        return subprocess.CompletedProcess(words, code, out.read(), err.read())


@cache
def _server() -> socket.socket:
    """The line to the process that is copied."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1)  # copies whose parent has ended become children of this process
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(line: socket.socket) -> dict[str, Any] | None:
    """A copy for every job that comes; returns the job in the copy, and None once nobody asks any more."""
    while True:
        asked, files, _, _ = socket.recv_fds(line, LARGEST, 2)
        if not asked:
            return None
        read, write = os.pipe()
        middle = os.fork()
        if middle == 0:  # ends at once, so that the copy becomes a child of whoever asked
            copy = os.fork()
            if copy:
                os.write(write, str(copy).encode())
                os._exit(0)
            for file, number in zip(files, (1, 2), strict=True):
                os.dup2(file, number)
            for file in (line.detach(), read, write, *files):
                os.close(file)
            job: dict[str, Any] = json.loads(asked)
            return job
        os.waitpid(middle, 0)
        line.send(os.read(read, 100))
        for file in (read, write, *files):
            os.close(file)


def _do(job: dict[str, Any]) -> None:
    """What Python does with these words."""
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["cwd"])
    kind, what, *more = job["words"]
    sys.path[0] = ""
    if kind == "-m":
        sys.argv = [what, *more]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    assert kind == "-c", f"python {kind} is not known here"
    sys.argv = [kind, *more]
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    exec(compile(what, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks
    for name in PRELOADED:
        if find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "threads are not copied"
    gc.freeze()  # a copy need not look through all of this when it ends
    job = _serve(socket.socket(fileno=int(sys.argv[1])))
    if job is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _do(job)
