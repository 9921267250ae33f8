"""Sharpness of the loss: the rise within the alpha-ball, and the top eigenvalue of the Hessian."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from harmofl.optim.sharpness import displaced, perturbation

ALPHA = 0.05
"""Radius of the ball, the paper's; the same for all methods, so that their values are comparable."""
STEPS = 5
"""Steps of the Lanczos iteration; each step takes one Hessian-vector product."""


@torch.no_grad()
def loss_rise(
    model: nn.Module,
    params: Sequence[nn.Parameter],
    gradients: Sequence[Tensor],
    loss: Callable[[], float],
    before: float,
    alpha: float = ALPHA,
) -> float:
    """Return f(w + alpha g / ||g||) - f(w), the rise of the loss at the paper's perturbation (Eq 6).

    To first order the perturbed point is the worst one in the ball of radius alpha, so the value is a lower bound of
    the largest rise in the ball.

    Args:
        model: the model; its buffers and params are unchanged on return.
        params: the params to perturb.
        gradients: g, one tensor a param.
        loss: returns f at the current params.
        before: f(w).
        alpha: radius of the ball.
    """
    with displaced(model, params, perturbation(list(gradients), alpha)):
        return loss() - before


def hessian_product(loss: Tensor, params: Sequence[nn.Parameter], vector: Tensor) -> Tensor:
    """Return H v for a flat v as the gradient of <grad, v>; zeros for params that the loss does not depend on.

    Args:
        loss: a scalar that autograd can differentiate twice.
        params: the params that H is taken with respect to.
        vector: v, (total number of entries of the params,).
    """
    first = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True, materialize_grads=True)
    parts = torch.split(vector, [p.numel() for p in params])
    along = torch.stack([(g * v.view_as(g)).sum() for g, v in zip(first, parts, strict=True)]).sum()
    if not along.requires_grad:  # a linear loss
        return torch.zeros_like(vector)
    second = torch.autograd.grad(along, params, allow_unused=True, materialize_grads=True)
    return flat_vector(second)


def flat_vector(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate all entries in the order of the dimensions, independent of the memory layout."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def top_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor, steps: int = STEPS) -> tuple[float, float]:
    """Return the largest eigenvalue of a symmetric matrix by Lanczos iteration with full reorthogonalization.

    Args:
        product: v -> A v.
        start: the first vector, not zero and not orthogonal to the eigenvector.
        steps: largest number of products.

    Returns:
        The largest Ritz value, a lower bound of the largest eigenvalue, and its residual: an eigenvalue lies within
        the residual of the Ritz value. NaN for both if a product is not finite.
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
