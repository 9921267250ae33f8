"""Settings of the C library's memory allocator."""

import ctypes
import sys

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
