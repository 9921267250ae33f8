"""Processes started here leave Ctrl-C to this one from their first moment."""

import signal
import subprocess
import sys
from threading import Thread

from harmofl.utils.child_processes import without_interrupts

SAY = "import signal; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"


def ignores() -> bool:
    return subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True).stdout == "True\n"


def test_a_process_is_deaf_from_its_start_and_this_one_only_until_then() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert not ignores()
        with without_interrupts():
            assert ignores()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_may_start_processes() -> None:
    entered = []

    def start() -> None:
        with without_interrupts():
            entered.append(True)

    thread = Thread(target=start)
    thread.start()
    thread.join()
    assert entered
