"""`python -m harmofl` and the command `harmofl`: Ctrl-C is heeded from the first moment, then the rest is imported."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn


def main() -> None:
    """Entry point. Ctrl-C, or a scheduler's SIGTERM, ends a command with one line and status 130."""
    # What is ignored stays so: a shell starts commands behind `&` deaf to Ctrl-C.
    heeded = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, _interrupt)
    from harmofl.cli.main import main as command

    try:
        command()
    except KeyboardInterrupt:
        _leave()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        for number in heeded:
            signal.signal(number, _leave)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; but leave at once while a module is imported, where it could surface as anything."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _leave()
        frame = frame.f_back
    raise KeyboardInterrupt


def _leave(*_: object) -> NoReturn:
    """End this process now. Nothing is lost: whatever is written is whole at any moment."""
    with suppress(OSError):
        os.write(2, b"harmofl: interrupted\n")  # print may be what was interrupted
    os._exit(130)


if __name__ == "__main__":
    main()
