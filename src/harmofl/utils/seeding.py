"""Random numbers without global state: each generator is seeded by (seed, purpose, round, site, ...).

No random state is kept between rounds, so a resumed run draws the same numbers as an uninterrupted one.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, *keys: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and every key and is the same on every machine."""
    text = "\x1f".join(map(str, (seed, *keys)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *keys: str | int) -> np.random.Generator:
    """Return a NumPy generator seeded by `seed` and the keys."""
    return np.random.default_rng(derived_seed(seed, *keys))


@contextmanager
def torch_seed(seed: int, *keys: str | int, device: "torch.device | None" = None) -> Iterator[None]:
    """Seed torch's generators of the CPU and of `device` from the keys within the context; restore them on exit."""
    import torch

    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(derived_seed(seed, *keys))
        for cuda in devices:
            with torch.cuda.device(cuda):
                torch.cuda.manual_seed(derived_seed(seed, *keys))
        yield
