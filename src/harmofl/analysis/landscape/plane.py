"""A plane of two directions in the space of the params, and the positions of solutions in the plane.

Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, section 4. https://arxiv.org/abs/1712.09913
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from harmofl.utils.seeding import derived_seed

PlaneKind = Literal["filters", "solutions"]
KINDS: tuple[PlaneKind, ...] = get_args(PlaneKind)


@dataclass(frozen=True)
class Plane:
    """The plane w + a d_1 + b d_2.

    Args:
        center: w, one tensor a param.
        directions: d_1 and d_2, each in the shapes of w.
        places: (S, 2), (a, b) of the point of the plane nearest to each of S other solutions.
        captured: (S,), the share of the squared distance of a solution from w that lies in the plane, from 0 to 1.
        distances: (S,), ||w_s - w||.
    """

    center: tuple[Tensor, ...]
    directions: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
    places: np.ndarray
    captured: np.ndarray
    distances: np.ndarray


def plane(kind: PlaneKind, center: Sequence[Tensor], others: Sequence[Sequence[Tensor]], seed: int) -> Plane:
    """Return a plane through the global solution.

    Args:
        kind: "filters" draws both directions at random and gives each of their filters the norm of the same filter of
            w, so that 1 on either axis changes every filter by its own norm; params of one dimension (biases, scales)
            stay unchanged. "solutions" takes the two directions of length 1 in which the other solutions lie
            furthest from w, so that axes are distances; missing directions are random.
        center: w, one tensor a param.
        others: other solutions, in the same shapes.
        seed: seed of random directions.
    """
    moves = [[(o - c).double() for o, c in zip(other, center, strict=True)] for other in others]
    pair = _filters(center, seed) if kind == "filters" else _principal(moves, center, seed)
    basis = torch.stack([_flat(direction) for direction in pair])
    where = torch.stack([_flat(move) for move in moves]) if moves else torch.zeros(0, basis.shape[1]).double()
    places = torch.linalg.solve(basis @ basis.T, basis @ where.T).T
    squared = where.square().sum(dim=1)
    inside = (places @ basis).square().sum(dim=1)
    return Plane(
        tuple(center),
        (pair[0], pair[1]),
        places.numpy(),
        torch.where(squared > 0, inside / squared.clamp_min(1e-300), 1.0).numpy(),
        squared.sqrt().numpy(),
    )


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.double().reshape(-1) for tensor in tensors])


def _random(center: Sequence[Tensor], seed: int, which: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(derived_seed(seed, "landscape", which) % 2**63)
    return [torch.randn(tensor.shape, generator=generator) for tensor in center]


def _filters(center: Sequence[Tensor], seed: int) -> list[tuple[Tensor, ...]]:
    """Draw random directions with d <- d ||w_filter|| / ||d_filter||; a filter is all weights of one output."""

    def normalized(direction: Tensor, weight: Tensor) -> Tensor:
        if weight.dim() < 2:
            return torch.zeros_like(weight)
        rows = direction.flatten(1)
        lengths = weight.flatten(1).norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True)
        scaled: Tensor = rows * lengths
        return scaled.view(weight.shape).to(weight.dtype)

    return [
        tuple(normalized(d, w) for d, w in zip(_random(center, seed, which), center, strict=True)) for which in (0, 1)
    ]


def _principal(moves: Sequence[Sequence[Tensor]], center: Sequence[Tensor], seed: int) -> list[tuple[Tensor, ...]]:
    """Return the first two right singular vectors of the moves, filled up with orthonormal random ones."""
    rows = [_flat(move) for move in moves] + [_flat(_random(center, seed, which)) for which in (0, 1)]
    matrix = torch.stack(rows)
    own = matrix[: len(moves)]
    # Singular vectors from the small Gram matrix: v = M' u / s.
    values, vectors = torch.linalg.eigh(own @ own.T) if len(moves) else (torch.zeros(0), torch.zeros(0, 0))
    found: list[Tensor] = []
    for k in reversed(range(len(moves))):
        if len(found) < 2 and float(values[k]) > 1e-10 * float(values[-1]) > 0:
            vector = own.T @ vectors[:, k]
            found.append(_turned(vector / vector.norm()))
    for extra in matrix[len(moves) :]:
        if len(found) < 2:
            for known in found:
                extra = extra - (extra @ known) * known
            found.append(extra / extra.norm())
    sizes = [tensor.numel() for tensor in center]
    return [
        tuple(p.view(w.shape).to(w.dtype) for p, w in zip(torch.split(v, sizes), center, strict=True)) for v in found
    ]


def _turned(vector: Tensor) -> Tensor:
    """Choose the sign of a vector so that its largest entry is above 0; this makes plots reproducible."""
    return vector * torch.sign(vector[vector.abs().argmax()])
