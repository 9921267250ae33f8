"""Automatic backend: sequential or in processes, whichever trains more images per second on this machine."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from harmofl.backends.processes import Equipment, Workers
from harmofl.backends.runner import RoundResult, Runner, Score
from harmofl.backends.sequential import Sequential
from harmofl.data.site import Site
from harmofl.federated.messages import ServerState
from harmofl.federated.method import Method
from harmofl.federated.tensors import Arrays

GAIN = 1.05
"""Speed-up over the sequential backend above which processes are worth their memory."""


class Auto:
    """Backend that runs round 1 sequentially, round 2 in processes, and all others in the faster way.

    The weights do not depend on the choice, so measuring costs at most one slower round. A context manager.

    Args:
        equip: see `Workers`.
        count: number of processes.
        score: scores weights at a site, in this process.
    """

    def __init__(self, equip: Callable[[int], Equipment], count: int, score: Score) -> None:
        self._equip, self._count, self._sequential = equip, count, Sequential(score)
        self._open = ExitStack()
        self._workers: Workers | None = None
        self._rates: list[float] = []

    def __enter__(self) -> "Auto":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def run_round(self, method: Method, server: ServerState, sites: Sequence[Site], *others: Any) -> RoundResult:
        """Run a round, see `RunRound`."""
        if len(self._rates) == 1 and self._workers is None:
            self._workers = self._open.enter_context(Workers(self._equip, self._count))
        begin = time.perf_counter()
        result = self._runner.run_round(method, server, sites, *others)
        if len(self._rates) < 2:
            images = sum(len(site.train) for site in sites)
            self._rates.append(images / (time.perf_counter() - begin))
            if len(self._rates) == 2 and self._rates[1] < GAIN * self._rates[0]:
                self._open.close()
                self._workers = None
        return result

    def scores(self, weights: Arrays, own: Mapping[str, Arrays], split: str) -> dict[str, dict[str, float]]:
        """Score the sites, see `Runner`."""
        return self._runner.scores(weights, own, split)

    @property
    def _runner(self) -> Runner:
        return self._workers or self._sequential
