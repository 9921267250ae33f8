"""Losses of logits (N, K, ...) against int64 class indices (N, ...) in [0, K), for any number of classes K.

They are computed at least in float32, also inside autocast, return one scalar >= 0, and raise ShapeError if the shapes
do not fit each other.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from harmofl.errors import ShapeError

Loss = Callable[[Tensor, Tensor], Tensor]

SMOOTH = 1e-5


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of -log softmax(logits)[target] over all images, or all pixels of all images."""
    return functional.cross_entropy(_checked(logits, targets), targets)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the soft Dice loss over the whole batch, background included, as HarmoFL's authors released it.

    With p = softmax(logits), y the one-hot targets and sums over every pixel of every image,

        loss = 1 - (1/K) sum_k (2 sum(p_k y_k) + s) / (sum(p_k) + sum(y_k) + s),   s = 1e-5,

    which lies in [0, 1].
    """
    p = torch.softmax(_checked(logits, targets), dim=1).transpose(0, 1).flatten(1)  # (K, pixels)
    classes = torch.arange(len(p), device=p.device)
    y = (targets.flatten() == classes[:, None]).to(p.dtype)
    dice = (2 * (p * y).sum(dim=1) + SMOOTH) / (p.sum(dim=1) + y.sum(dim=1) + SMOOTH)
    return 1 - dice.mean()


def dice_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (cross_entropy + dice_loss) / 2, the loss of the prostate experiments."""
    return (cross_entropy(logits, targets) + dice_loss(logits, targets)) / 2


LOSSES: Final[dict[str, Loss]] = {"cross-entropy": cross_entropy, "dice": dice_loss, "dice-ce": dice_cross_entropy}


def _checked(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the logits in float32 or wider; raise ShapeError if the shapes do not fit."""
    if logits.dim() < 2 or logits.shape[:1] + logits.shape[2:] != targets.shape:
        got = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        raise ShapeError(f"logits and targets must be (N, K, ...) and (N, ...), got {got}")
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
