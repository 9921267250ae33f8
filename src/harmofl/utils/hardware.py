"""Number of cores and amount of memory available to this process, and its memory allocator."""

import ctypes
import os
import sys
from pathlib import Path

from harmofl.errors import ConfigError


def available_cores() -> int:
    """Return the number of cores this process may use, within its affinity (taskset) and a container's CPU quota."""
    from joblib import cpu_count

    return int(cpu_count())


def default_threads(workers: int) -> tuple[int, str]:
    """Return the threads of each of `workers` processes (0 as 1) for `run.threads=0`, and the reason in words."""
    cores, machine = available_cores(), os.cpu_count() or 1
    share = max(1, cores // (workers or 1))
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and 0 < int(asked) < share:
        return int(asked), "OMP_NUM_THREADS"
    of = f"all {cores} cores" if cores == machine else f"{cores} of {machine} cores, by affinity or CPU quota"
    return share, of if workers < 2 else f"{of}, {workers} processes"


def processes_that_fit(device: str, threads: int) -> int:
    """Return the number of processes that fit side by side: one a GPU, or the cores divided by `threads` (0 as 1)."""
    if device == "auto" or device.startswith("cuda"):
        import torch

        if torch.cuda.is_available():
            return torch.cuda.device_count() if device in ("cuda", "auto") else 1
    return max(1, available_cores() // (threads or 1))


LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Files of a container's control group, versions 2 and 1: memory limit and memory in use."""


def free_memory() -> int:
    """Return the bytes this process can still allocate: free memory and swap, within a container's limit."""
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
    """Raise ConfigError if fewer bytes are free than `needed`, before they are allocated.

    The message names `what` needs them, such as "500 images of 256x256 pixels", and what to do `instead`.
    """
    free = free_memory()
    if needed > free:
        raise ConfigError(
            f"{what} must fit into memory, but need {_size(needed)} and {_size(free)} are free; {instead}"
        )


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{max(count, 0) / 1e6:.0f} MB"


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 32 MiB instead of unmapping and mapping them again.

    Activations of a small network are allocated and freed at every step; mapping them again took a fifth of a
    step's time. With another C library this function does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
