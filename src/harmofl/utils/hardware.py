"""How many cores and how much memory this process may use."""

import os
from pathlib import Path

from harmofl.errors import ConfigError


def available_cores() -> int:
    """Cores this process may use: those of the machine, fewer under taskset or the CPU quota of a container."""
    from joblib import cpu_count

    return int(cpu_count())


def default_threads(workers: int) -> tuple[int, str]:
    """Threads of each of so many processes (0 as 1) where `run.threads` is 0, and why so many, in words."""
    cores, machine = available_cores(), os.cpu_count() or 1
    share = max(1, cores // (workers or 1))
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and 0 < int(asked) < share:
        return int(asked), "OMP_NUM_THREADS"
    of = f"all {cores} cores" if cores == machine else f"{cores} of {machine} cores, by affinity or CPU quota"
    return share, of if workers < 2 else f"{of}, {workers} processes"


LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Files of a container's control group, versions 2 and 1: what it may hold and what it does."""


def free_memory() -> int:
    """Bytes that this process can still get, of the machine and, in a container, of its limit."""
    import psutil

    free = psutil.virtual_memory().available + psutil.swap_memory().free
    for place in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")):
        for limit, usage in LIMITS:
            try:
                free = min(free, int((place / limit).read_text()) - int((place / usage).read_text()))
            except (OSError, ValueError):  # no such file, or "max"
                continue
    return int(free)


def check_memory(needed: float, what: str, instead: str) -> None:
    """Refuse what cannot fit, before memory is asked for.

    Args:
        needed: bytes.
        what: for which they are needed, such as "500 images of 256x256 pixels".
        instead: what to do about it.

    Raises:
        ConfigError: if less is free.
    """
    free = free_memory()
    if needed > free:
        raise ConfigError(
            f"{what} must fit into memory, but need {_size(needed)} and {_size(free)} are free; {instead}"
        )


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{max(count, 0) / 1e6:.0f} MB"
