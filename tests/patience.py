"""How long tests wait for what should happen: the only place with limits, and they grow on a slow or busy machine.

A limit is written as what a machine of the speed of the reference needs at most when it has little else to do. It is
multiplied by how much longer a fixed piece of work takes here, and by room for what the machine begins to do later. So
a limit decides how soon a failure is told, never whether a slow machine passes.
"""

import os
import time
from collections.abc import Callable
from functools import cache
from statistics import median

REFERENCE = 0.075
"""Seconds that the fixed piece of work takes on the reference machine."""
ROOM = 4.0
"""So many times as slow may the machine become after it was measured."""
WHOLE_TEST = 150.0
"""Seconds at ease within which every test ends."""


@cache
def slowness() -> float:
    """How many times as long as on the reference machine work takes here, at least 1."""
    measured = os.environ.get("HARMOFL_SLOWNESS")  # by the process that started this one
    return float(measured) if measured else max(1.0, median(_piece() for _ in range(5)) / REFERENCE)


def _piece() -> float:
    begin = time.perf_counter()
    sum(k * k % 7 for k in range(1_000_000))
    return time.perf_counter() - begin


def seconds(at_ease: float) -> float:
    """The limit for what takes at most so long at ease."""
    return at_ease * ROOM * slowness()


def pause(at_ease: float) -> float:
    """How long something is made to last that is waited out: without room, for each test pays for it."""
    return at_ease * slowness()


def until(
    holds: Callable[[], object],
    told: Callable[[], str] = str,
    at_ease: float = 60.0,
    pause: Callable[[float], object] = lambda milliseconds: time.sleep(milliseconds / 1000),
) -> None:
    """Wait for what should come to hold; an AssertionError with what is told if it does not."""
    end = time.monotonic() + seconds(at_ease)
    while not holds():
        assert time.monotonic() < end, f"after {seconds(at_ease):.0f} s still not; {told()}"
        pause(50)
