"""How sharp a place of the loss is: the rise within the alpha-ball, and the top eigenvalue of the Hessian."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from harmofl.optim.sharpness import climb, displaced

ALPHA = 0.05
"""Radius of the ball, the paper's; one for all methods, so that they compare."""
STEPS = 5
"""Of the Lanczos iteration, a Hessian-vector product each."""


@torch.no_grad()
def loss_rise(
    model: nn.Module,
    params: Sequence[nn.Parameter],
    gradients: Sequence[Tensor],
    loss: Callable[[], float],
    before: float,
    alpha: float = ALPHA,
) -> float:
    """f(w + alpha g / ||g||) - f(w): what the loss rises by at the paper's perturbation (Eq 6).

    To first order that is the worst point of the ball of radius alpha, and so a lower bound of the rise there.

    Args:
        model: whose buffers stay as they are; so do the params.
        params: what moves.
        gradients: g, one a param.
        loss: f at the params.
        before: f at w.
        alpha: the radius.
    """
    with displaced(model, params, climb(list(gradients), alpha)):
        return loss() - before


def hessian_product(loss: Tensor, params: Sequence[nn.Parameter], vector: Tensor) -> Tensor:
    """H v for a flat v, by differentiating <grad, v>; params that the loss does not depend on have zeros.

    Args:
        loss: a scalar that autograd can differentiate twice.
        params: with respect to these.
        vector: (sum of their sizes,).
    """
    first = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True, materialize_grads=True)
    parts = torch.split(vector, [p.numel() for p in params])
    along = torch.stack([(g * v.view_as(g)).sum() for g, v in zip(first, parts, strict=True)]).sum()
    if not along.requires_grad:  # a linear loss
        return torch.zeros_like(vector)
    second = torch.autograd.grad(along, params, allow_unused=True, materialize_grads=True)
    return flat_vector(second)


def flat_vector(tensors: Sequence[Tensor]) -> Tensor:
    """All entries one after the other, in the order of the dimensions whatever the layout in memory."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def top_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor, steps: int = STEPS) -> tuple[float, float]:
    """The largest eigenvalue of a symmetric matrix by Lanczos, every vector orthogonalized against all before it.

    Args:
        product: v -> A v.
        start: the vector to begin with, not zero and not orthogonal to the eigenvector.
        steps: products that are computed at most.

    Returns:
        The largest Ritz value, a lower bound of the largest eigenvalue; and its residual: some eigenvalue is no further
        from it than that. NaN if a product is not finite.
    """
    from scipy.linalg import eigh_tridiagonal

    basis, diagonal, beside = [start / start.norm()], list[float](), list[float]()
    for _ in range(min(steps, len(start))):
        image = product(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        for _again in range(2):  # once is not enough in float32
            for vector in basis:
                image = image - (image @ vector) * vector
        beside.append(float(image.norm()))
        if not math.isfinite(beside[-1]):
            return math.nan, math.nan
        if beside[-1] <= 1e-6 * max(map(abs, diagonal)):
            break
        basis.append(image / beside[-1])
    values, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside[:-1]))
    return float(values[-1]), abs(beside[-1] * float(vectors[-1, -1]))
