"""Processes that work for this one and end with it."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl.h


def end_with_parent() -> None:
    """In a new process: leave Ctrl-C to the parent, and end when it does, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
