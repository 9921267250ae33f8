"""Averages of the sites' arrays that a few sites cannot move far."""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from harmofl.federated.tensors import Arrays, difference, mean, moved_by, norm


def trimmed_mean(arrays: Sequence[Arrays], shares: Sequence[float], cut: int) -> dict[str, Tensor]:
    """Return the mean of each number without its `cut` smallest and largest values.

    Complex and boolean arrays have no order: their mean uses the shares.

    Args:
        arrays: the arrays of N sites, with the same names and shapes.
        shares: p_i.
        cut: from 0 to (N - 1) // 2, which gives the median.

    Raises:
        ShapeError: if the entries differ in names or shapes.
    """
    plain = mean(arrays, shares)  # also checks that names and shapes agree
    return {name: _middle([entry[name] for entry in arrays], cut, value) for name, value in plain.items()}


def _middle(values: Sequence[Tensor], cut: int, plain: Tensor) -> Tensor:
    """Return the mean of each number without the `cut` smallest and largest; `plain` for complex and boolean values."""
    if plain.is_complex() or plain.dtype == torch.bool:
        return plain
    kept = torch.stack([value.double() for value in values]).sort(dim=0).values[cut : len(values) - cut]
    middle = kept.mean(dim=0)
    return middle.to(plain.dtype) if plain.is_floating_point() else middle.round().to(plain.dtype)


def clipped_changes(arrays: Sequence[Arrays], before: Arrays, params: Collection[str]) -> list[Arrays]:
    """Return the sites' arrays with each site's change of the params clipped to the median norm of the changes.

    Args:
        arrays: the arrays of N sites.
        before: the arrays that were sent to the sites.
        params: the names that count and are clipped.
    """
    ways = [difference(entry, before, [name for name in params if name in entry]) for entry in arrays]
    lengths = [norm(list(way.values())) for way in ways]
    limit = float(np.median(lengths))
    return [
        entry if length <= limit else {**entry, **moved_by({name: before[name] for name in way}, way, limit / length)}
        for entry, way, length in zip(arrays, ways, lengths, strict=True)
    ]
