"""Arithmetic on named tensors, the content of messages between sites and server."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from harmofl.errors import ShapeError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Arrays: TypeAlias = "Mapping[str, Tensor]"
"""state_dict name -> CPU tensor."""


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the module's state_dict on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}


def mean(arrays: Sequence[Arrays], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return sum_i p_i a_i for every name, p = weights / sum(weights).

    Sums are in float64, so that values equal in all entries stay equal to the bit. No entry changes its dtype:
    integers (counters) are rounded, booleans are true where more than half of the weight is.

    Raises:
        ShapeError: if the entries differ in names or shapes.
        ValueError: if `arrays` is empty, or the weights do not sum to more than 0.
    """
    running = RunningMean(weights)
    for entry in arrays:
        running.add(entry)
    return running.value()


class RunningMean:
    """The mean of `mean`, to the bit, of entries that are added one by one; it holds one entry in float64.

    Args:
        weights: of each entry that will be added, in this order.

    Raises:
        ValueError: if the weights do not sum to more than 0.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        total = float(sum(weights))
        if total <= 0:
            raise ValueError(f"a mean needs at least one entry and positive weights, got {len(weights)} and {total}")
        self._shares = [w / total for w in weights]
        self._added = 0
        self._like: Arrays = {}
        self._sums: dict[str, Tensor] = {}

    def add(self, arrays: Arrays) -> None:
        """Add the next entry.

        Raises:
            ShapeError: if it differs from the others in names or shapes.
            ValueError: if there are more entries than weights.
        """
        import torch

        if self._added == len(self._shares):
            raise ValueError(f"a mean of {self._added} entries needs as many weights, got another entry")
        if not self._added:
            self._like = {name: torch.empty_like(value, device="meta") for name, value in arrays.items()}
            self._sums = {name: torch.zeros_like(value, dtype=_wide(value.dtype)) for name, value in arrays.items()}
        _check_alike(self._like, arrays)
        for name, total in self._sums.items():
            total.add_(arrays[name], alpha=self._shares[self._added])
        self._added += 1

    def value(self) -> dict[str, Tensor]:
        """Return the mean; raise ValueError unless every entry was added."""
        if self._added < len(self._shares):
            raise ValueError(f"a mean of {len(self._shares)} entries needs all of them, got {self._added}")
        return {name: _narrow(total, self._like[name].dtype) for name, total in self._sums.items()}


def difference(a: Arrays, b: Arrays, names: Iterable[str]) -> dict[str, Tensor]:
    """Return a - b for these names, in float64, where the difference of two float32 numbers is exact."""
    return {name: a[name].double() - b[name].double() for name in names}


def moved_by(a: Arrays, by: Arrays, scale: float = 1.0) -> dict[str, Tensor]:
    """Return a + scale * by for the names of `by`, computed in float64, each with its dtype in `a`."""
    return {name: (a[name].double() + scale * step.double()).to(a[name].dtype) for name, step in by.items()}


def scaled(a: Arrays, factor: float) -> dict[str, Tensor]:
    """Return the entries times a factor, computed in float64, each with its dtype."""
    return {name: (value.double() * factor).to(value.dtype) for name, value in a.items()}


def zeros(a: Arrays, names: Iterable[str], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return zeros with the shapes of these entries of `a`."""
    import torch

    return {name: torch.zeros_like(a[name], dtype=dtype) for name in names}


def _wide(dtype: torch.dtype) -> torch.dtype:
    import torch

    return torch.complex128 if dtype.is_complex else torch.float64


def _narrow(total: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a sum as a type: integers are rounded, booleans are true above a half."""
    import torch

    if dtype == torch.bool:
        return total > 0.5
    return total.to(dtype) if dtype.is_floating_point or dtype.is_complex else total.round().to(dtype)


def _check_alike(a: Arrays, b: Arrays) -> None:
    if a.keys() != b.keys():
        raise ShapeError(f"all updates must have the same entries; only some have {sorted(a.keys() ^ b.keys())[0]!r}")
    for name in a:
        if a[name].shape != b[name].shape:
            raise ShapeError(
                f"{name} must have one shape at all sites, got {tuple(a[name].shape)} and {tuple(b[name].shape)}; "
                "train every site with the same network and image size"
            )


def is_finite(value: Tensor) -> bool:
    """Return True if no number is infinite or NaN; always True for integers and booleans."""
    floating = value.is_floating_point() or value.is_complex()
    return not floating or bool(value.sum().isfinite()) or bool(value.isfinite().all())  # the sum is faster


def norm(values: Sequence[Tensor]) -> float:
    """Return the Euclidean norm over all tensors together; 0 for an empty sequence."""
    return math.sqrt(sum(float(value.double().square().sum()) for value in values))


def total_bytes(groups: Mapping[str, Arrays]) -> int:
    """Return the bytes of groups of tensors on the wire."""
    return sum(map(num_bytes, groups.values()))


def num_bytes(a: Arrays) -> int:
    """Return the bytes of the tensors on the wire."""
    return sum(value.numel() * value.element_size() for value in a.values())
