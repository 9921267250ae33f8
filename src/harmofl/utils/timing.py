"""How long pieces of work take, by the clock and by the processor, within a budget."""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from harmofl.types import Progress

T = TypeVar("T")
_JUDGED = 2.0  # seconds below which a pause of the system would pass for busy cores


class Meter:
    """Times pieces of work within a budget, and says which.

    A time is a pair: seconds that passed, and what it takes on idle cores at most, where work that waits for nothing
    takes no longer than its processor time.

    Args:
        budget: seconds for all pieces.
        computes: whether the processor does the work, not a GPU that it waits for.
        progress: told what is measured, and of how many seconds how many are spent.
    """

    def __init__(self, budget: float, computes: bool, progress: Progress) -> None:
        self._budget, self._computes, self._progress = budget, computes, progress
        self._judged = np.zeros(2)
        self.short = False
        self.restart()

    def restart(self) -> None:
        """Nothing of the budget is spent."""
        self._begin = time.perf_counter()

    def tell(self, what: str) -> None:
        """What is measured next."""
        spent = min(time.perf_counter() - self._begin, self._budget)
        self._progress(f"measuring {what}", int(spent), int(self._budget))

    def time(self, what: str, work: Callable[[], T]) -> tuple[np.ndarray, T]:
        """How long it takes, and what it returns."""
        self.tell(what)
        passed, worked = time.perf_counter(), time.process_time()
        result = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        passed, worked = time.perf_counter() - passed, time.process_time() - worked
        return np.array([passed, min(passed, worked) if self._computes else passed]), result

    def fitting(self, wanted: int, seconds: float) -> int:
        """As many pieces of so many seconds each as are wanted, or as fit into what is left."""
        left = max(self._begin + self._budget - time.perf_counter(), 0.0)
        fit = min(wanted, int(left / max(seconds, 1e-6)))
        self.short |= fit < wanted
        return fit

    def judge(self, took: np.ndarray) -> None:
        """Tell from this time, too, whether cores are busy; its work waits for nothing, neither imports nor a disk."""
        self._judged += took

    @property
    def share(self) -> float:
        """Processor time by wall time of what was judged, 1 at most."""
        return float(self._judged[1] / self._judged[0]) if self._judged[0] >= _JUDGED else 1.0
