"""Random flips and quarter turns of images, drawn first and applied afterwards to be replayed; flips of volumes."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from harmofl.federated.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Moves:
    """Transforms of N images: first a flip left to right, then a flip top to bottom, then quarter turns.

    Args:
        across: (N,) bool, flipped left to right.
        down: (N,) bool, flipped top to bottom.
        turns: (N,) int64 in 0..3, counterclockwise quarter turns.
    """

    across: np.ndarray
    down: np.ndarray
    turns: np.ndarray


def draw_moves(count: int, rng: np.random.Generator, *, turn: bool) -> Moves:
    """Draw the transforms of `count` images; without `turn`, none is turned."""
    across, down = rng.integers(2, size=(2, count)).astype(bool)
    turns = rng.integers(4, size=count) if turn else np.zeros(count, dtype=np.int64)
    return Moves(across, down, turns)


def apply_moves(batch: Batch, moves: Moves) -> Batch:
    """Return a new batch with each image and its label map transformed."""
    targets = batch.targets.clone() if batch.targets.ndim == 1 else _moved(batch.targets, moves)
    return Batch(_moved(batch.images, moves), targets)


def augment(batch: Batch, rng: np.random.Generator) -> Batch:
    """Flip every image at random, and turn it if it is square; label maps follow their images.

    Args:
        batch: images and targets of one training step; not modified.
        rng: the only source of randomness.

    Returns:
        a new batch of the same shapes and types.
    """
    height, width = batch.images.shape[-2:]
    return apply_moves(batch, draw_moves(len(batch), rng, turn=height == width))


def augment_as_released(batch: Batch, rng: np.random.Generator) -> Batch:
    """Augment as HarmoFL's released code does prostate slices: turn by 0 to 4 quarters if square, and flip.

    Four quarter turns equal none, so an odd number of turns has a probability of 2/5, not 1/2. The flips, along one or
    both axes with a total probability of 3/4, are those of `augment`.
    """
    moves = draw_moves(len(batch), rng, turn=False)
    height, width = batch.images.shape[-2:]
    turns = rng.integers(5, size=len(batch)) % 4 if height == width else moves.turns
    return apply_moves(batch, replace(moves, turns=turns))


def flip_volumes(batch: Batch, rng: np.random.Generator) -> Batch:
    """Flip every volume (1, D, H, W) along each of its axes at random; label maps follow their volumes.

    The batch is not modified; `rng` is the only source of randomness.
    """
    import torch

    images, targets = batch.images.clone(), batch.targets.clone()
    for axis, chosen in zip((-3, -2, -1), rng.integers(2, size=(3, len(batch))), strict=True):
        rows = torch.from_numpy(np.flatnonzero(chosen))
        images[rows], targets[rows] = images[rows].flip(axis), targets[rows].flip(axis)
    return Batch(images, targets)


def _moved(planes: "Tensor", moves: Moves) -> "Tensor":
    """Transform (N, ..., H, W) planes."""
    import torch

    moved = planes.clone()
    for chosen, axis in ((moves.across, -1), (moves.down, -2)):
        rows = torch.from_numpy(np.flatnonzero(chosen))
        moved[rows] = moved[rows].flip(axis)
    for quarter in (1, 2, 3):
        rows = torch.from_numpy(np.flatnonzero(moves.turns == quarter))
        if len(rows):
            moved[rows] = torch.rot90(moved[rows], quarter, (-2, -1))
    return moved
