"""The plain loop or processes, whichever trains more images a second here."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from harmofl.backends import RoundResult, sequential
from harmofl.backends.processes import Equipment, Workers
from harmofl.data.site import Site
from harmofl.federated.messages import ServerState
from harmofl.federated.method import Method

GAIN = 1.05
"""Processes must be so many times as fast as the loop, for the memory they take."""


class Auto:
    """The first round in a loop, the second in processes, all others as the faster of the two; a context.

    The weights do not depend on it, so that measuring costs no more than one slower round.

    Args:
        equip: see `Workers`.
        count: how many processes.
    """

    def __init__(self, equip: Callable[[int], Equipment], count: int) -> None:
        self._equip, self._count = equip, count
        self._open = ExitStack()
        self._workers: Workers | None = None
        self._rates: list[float] = []

    def __enter__(self) -> "Auto":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def run_round(self, method: Method, server: ServerState, sites: Sequence[Site], *others: Any) -> RoundResult:
        """See `RunRound`."""
        if len(self._rates) == 1 and self._workers is None:
            self._workers = self._open.enter_context(Workers(self._equip, self._count))
        carry: Callable[..., RoundResult] = self._workers.run_round if self._workers else sequential.run_round
        begin = time.perf_counter()
        result = carry(method, server, sites, *others)
        if len(self._rates) < 2:
            images = sum(len(site.train) for site in sites)
            self._rates.append(images / (time.perf_counter() - begin))
            if len(self._rates) == 2 and self._rates[1] < GAIN * self._rates[0]:
                self._open.close()
                self._workers = None
        return result
