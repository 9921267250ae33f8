"""`python -m harmofl` and the command `harmofl`: Ctrl-C is heeded from the first moment, then the rest is imported."""

import os
import signal
from types import FrameType
from typing import NoReturn


def main() -> None:
    """Entry point. Ctrl-C, or a scheduler's SIGTERM, ends every command with one line and status 130."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    from harmofl.cli import main as command

    try:
        command()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
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
    os.write(2, b"harmofl: interrupted\n")  # print may be what was interrupted
    os._exit(130)


if __name__ == "__main__":
    main()
