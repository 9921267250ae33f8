"""Randomness without a global state: every draw comes from (seed, what it is for, round, site, ...).

Nothing random is therefore kept between rounds, and a resumed run draws what an undisturbed one would have drawn.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, *keys: str | int) -> int:
    """A 63-bit seed that depends on `seed` and every key, the same on every machine."""
    text = "\x1f".join(map(str, (seed, *keys)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *keys: str | int) -> np.random.Generator:
    """A NumPy generator of its own for these keys."""
    return np.random.default_rng(derived_seed(seed, *keys))


@contextmanager
def torch_seed(seed: int, *keys: str | int, device: "torch.device | None" = None) -> Iterator[None]:
    """Within, torch's generators of the CPU and of `device` start from these keys; afterwards they are as before."""
    import torch

    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(derived_seed(seed, *keys))
        for cuda in devices:
            with torch.cuda.device(cuda):
                torch.cuda.manual_seed(derived_seed(seed, *keys))
        yield
