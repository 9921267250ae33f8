"""Doing the same to many files, several at a time.

Threads and not processes: decoders and encoders release Python's lock while they work, and nothing is to be started or
sent. With two cores 96 x 96 PNG are decoded 1.5 times as fast as with one, larger images 1.8 times.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def default_workers() -> int:
    """As many as this process may use cores, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores))


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int | None = None) -> Iterator[R]:
    """Yield `work(item)` for every item, in their order, while the next ones are worked on.

    Args:
        work: what to do; called from several threads at a time.
        items: taken as they are needed; no more than a few results wait to be fetched.
        workers: how many at a time; as many as there are cores if not given. 1 works in this thread.

    Raises:
        Whatever `work` raises, when its turn has come; what has not begun is then left.
    """
    workers = workers or default_workers()
    if workers == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
