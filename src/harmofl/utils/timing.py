"""Wall time and processor time of pieces of work, measured within a budget."""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from harmofl.types import Progress

T = TypeVar("T")
_JUDGED = 2.0  # seconds; over shorter times a pause of the system looks like busy cores


class Meter:
    """Timer that measures pieces of work within a budget and reports each of them.

    A time is a pair: wall seconds, and an upper bound of them on idle cores, where work that never waits takes no
    longer than its processor time. The budget is in seconds, for all pieces; `computes` is True if the processor does
    the work, False if it waits for a GPU.
    """

    def __init__(self, budget: float, computes: bool, progress: Progress) -> None:
        self._budget, self._computes, self._progress = budget, computes, progress
        self._judged = np.zeros(2)
        self.short = False
        self.restart()

    def restart(self) -> None:
        """Reset the seconds spent to zero."""
        self._begin = time.perf_counter()

    def tell(self, what: str) -> None:
        """Report the piece that is measured next."""
        spent = min(time.perf_counter() - self._begin, self._budget)
        self._progress(f"measuring {what}", int(spent), int(self._budget))

    def time(self, what: str, work: Callable[[], T]) -> tuple[np.ndarray, T]:
        """Return the time that a piece of work takes, and its result."""
        self.tell(what)
        passed, worked = time.perf_counter(), time.process_time()
        result = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        passed, worked = time.perf_counter() - passed, time.process_time() - worked
        return np.array([passed, min(passed, worked) if self._computes else passed]), result

    def fitting(self, wanted: int, seconds: float) -> int:
        """Return the number of pieces, at most `wanted`, of `seconds` each that fit into the rest of the budget."""
        left = max(self._begin + self._budget - time.perf_counter(), 0.0)
        fit = min(wanted, int(left / max(seconds, 1e-6)))
        self.short |= fit < wanted
        return fit

    def judge(self, took: np.ndarray) -> None:
        """Add a time to those that `share` is computed from; its work must not wait for imports or a disk."""
        self._judged += took

    @property
    def share(self) -> float:
        """Processor time divided by wall time over the judged pieces, at most 1."""
        return float(self._judged[1] / self._judged[0]) if self._judged[0] >= _JUDGED else 1.0
