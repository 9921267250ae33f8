"""Robust averages of the sites' arrays, as alternatives to the mean."""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from harmofl.federated.tensors import Arrays, difference, mean, moved_by, norm

Average = Literal["mean", "median", "trimmed", "clipped"]


def average(
    how: Average,
    arrays: Sequence[Arrays],
    shares: Sequence[float],
    before: Arrays,
    params: Collection[str],
    trim: float,
) -> dict[str, Tensor]:
    """Return the average of the sites' arrays for every name.

    Args:
        how: "mean" is sum_i p_i a_i; "median" is the median of each number, and "trimmed" the mean of each number
            without the floor(trim N) smallest, at least one, and as many largest (Yin et al., "Byzantine-Robust
            Distributed Learning", ICML 2018), both without p_i; "clipped" is the mean after each site's change of the
            params is clipped to the median norm of the changes (Sun et al., "Can You Really Backdoor Federated
            Learning?", 2019).
        arrays: the arrays of N sites, with the same names and shapes.
        shares: p_i, used by "mean" and "clipped".
        before: the arrays that were sent to the sites.
        params: the names that "clipped" clips.
        trim: share of the sites that is left out at either end, in [0, 0.5).

    Raises:
        ShapeError: if the entries differ in names or shapes.
    """
    if how == "clipped":
        return mean(_clipped(arrays, before, params), shares)
    plain = mean(arrays, shares)  # also checks that names and shapes agree
    if how == "mean":
        return plain
    most = (len(arrays) - 1) // 2
    cut = min(most, max(1, int(trim * len(arrays)))) if how == "trimmed" and trim else most if how == "median" else 0
    return {name: _middle([entry[name] for entry in arrays], cut, value) for name, value in plain.items()}


def _middle(values: Sequence[Tensor], cut: int, plain: Tensor) -> Tensor:
    """Return the mean of each number without the `cut` smallest and largest; `plain` for complex and boolean values."""
    if plain.is_complex() or plain.dtype == torch.bool:
        return plain
    kept = torch.stack([value.double() for value in values]).sort(dim=0).values[cut : len(values) - cut]
    middle = kept.mean(dim=0)
    return middle.to(plain.dtype) if plain.is_floating_point() else middle.round().to(plain.dtype)


def _clipped(arrays: Sequence[Arrays], before: Arrays, params: Collection[str]) -> list[Arrays]:
    ways = [difference(entry, before, [name for name in params if name in entry]) for entry in arrays]
    lengths = [norm(list(way.values())) for way in ways]
    limit = float(np.median(lengths))
    return [
        entry if length <= limit else {**entry, **moved_by({name: before[name] for name in way}, way, limit / length)}
        for entry, way, length in zip(arrays, ways, lengths, strict=True)
    ]
