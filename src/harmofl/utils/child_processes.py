"""Child processes that end with their parent and leave Ctrl-C to it."""

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1  # prctl.h


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Ignore SIGINT within the context, so that processes started there leave Ctrl-C to this one while they import."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_with_parent() -> None:
    """Ignore Ctrl-C in a child process, and on Linux end it when its parent ends for any reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_all_in(folder: Path) -> None:
    """Kill the processes whose working directory is this folder."""
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == str(folder):
            with suppress(psutil.Error):
                process.kill()
