"""Parallel processing of many files in threads.

Threads suffice, since decoders and encoders release Python's global interpreter lock, and need no start-up or transfer
of data as processes do. On two cores, decoding 4000 PNG of 96 x 96 takes 1.7 to 1.8 times as long without threads
(benchmarks/loading.py).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from harmofl.utils.hardware import available_cores

T = TypeVar("T")
R = TypeVar("R")

QUICK = 32
"""The number of photographs per task of a thread: one takes under a millisecond, about as long as a thread switch."""


def workers_for_files() -> int:
    """Return the number of cores that this process may use, at most 16."""
    return min(16, available_cores())


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int | None = None, together: int = 1) -> Iterator[R]:
    """Yield `work(item)` for every item, in order, while other threads process the next items.

    Args:
        work: the function to apply; called from several threads at a time.
        items: read as they are needed; only a few results are buffered.
        workers: the number of threads, by default the number of cores; 1 works in the calling thread.
        together: the number of items per task of a thread; use more than 1 for quick work.

    Raises:
        Exception: any error of `work`, at the position of its item; tasks that have not begun are then cancelled.
    """
    workers = workers or workers_for_files()
    if workers == 1:
        yield from map(work, items)
        return

    def several(chunk: list[T]) -> list[R]:
        return [work(item) for item in chunk]

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[list[R]]] = deque()
        remaining = iter(items)
        try:
            while chunk := list(islice(remaining, together)):
                waiting.append(pool.submit(several, chunk))
                if len(waiting) >= 3 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
