"""How much memory there is, and how the C library hands it back."""

import ctypes
import sys
from pathlib import Path

from harmofl.errors import ConfigError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, up to 32 MiB a piece, instead of giving it back and mapping it anew.

    Activations of a small network are allocated and freed at every step; mapping them anew took a fifth of a
    step's time. Does nothing where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


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
