"""Client weight perturbation: compute the gradient at weights moved uphill, then restore the weights exactly.

Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 6-7; Foret et al., "Sharpness-Aware Minimization", ICLR 2021.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce

import torch
from torch import Tensor, nn

from harmofl.errors import ConfigError
from harmofl.spectral.image_norm import ImageNorm
from harmofl.utils.validators import check_within


@contextmanager
def perturbed(target: nn.Module | Iterable[nn.Parameter], alpha: float) -> Iterator[None]:
    """Move the weights to w + alpha g / ||g||_2 within the context, with g the gradients on entry (Eq 6).

    On entry the gradients are cleared, so that a backward pass inside gives grad l(w + delta), the gradient to step
    with (Eq 7). On exit, also by an exception, weights and buffers (running statistics) are restored bit for bit.
    A gradient that is zero or whose norm is not finite moves nothing: the body then runs at w itself.

        loss(model(x), y).backward()
        with perturbed(model, alpha=0.05):
            loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    Args:
        target: the model, or its parameters if it has no running statistics to protect. Parameters without a
            gradient do not move; ||g|| is one norm over all the others.
        alpha: length of the perturbation, at least 0; 0.05 in the paper.

    Raises:
        ConfigError: if alpha is negative or not finite, or `target` is neither a model nor parameters.
    """
    check_within("alpha", alpha, "[0, inf)")
    params = _with_gradient(target)
    with displaced(target, params, perturbation([p.grad for p in params if p.grad is not None], alpha)):
        yield


def _with_gradient(target: nn.Module | Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Return the parameters that have a gradient, shared ones once."""
    params = list(target.parameters() if isinstance(target, nn.Module) else target)
    if isinstance(target, Tensor) or not all(isinstance(p, Tensor) for p in params):
        raise ConfigError(f"perturbed needs a model or its parameters, got {type(target).__name__}; pass the model")
    return [p for p in dict.fromkeys(params) if p.grad is not None]


@contextmanager
def displaced(
    target: nn.Module | Iterable[nn.Parameter], params: Sequence[nn.Parameter], deltas: Sequence[Tensor]
) -> Iterator[None]:
    """Move each of `params` to w + delta, without a gradient, within the context; `perturbed` uses Eq 6 for delta.

    The buffers of `target` do not change if it is a model.
    """
    moved = [p.detach() for p in params]
    before = _copies(moved)
    with ExitStack() as stack:
        if isinstance(target, nn.Module):
            stack.enter_context(_still(target))
        try:
            if moved:
                torch._foreach_add_(moved, list(deltas))
            for p in params:
                p.grad = None
            yield
        finally:
            _copy(before, moved)


@torch.no_grad()
def perturbation(gradients: list[Tensor], alpha: float) -> list[Tensor]:
    """Return delta = alpha g / ||g||_2 with one norm over all tensors, computed at least in float32 (Eq 6).

    The result is zero where alpha / ||g|| is not finite: for a zero gradient and for one that is not finite.
    """
    if not gradients:
        return []
    wide = reduce(torch.promote_types, (g.dtype for g in gradients), torch.float32)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, dtype=wide)))
    usable = torch.isfinite(norm) & torch.isfinite(alpha / norm)
    scale = torch.where(usable, alpha / norm, 0)
    ways = torch._foreach_mul(gradients, scale)
    return [torch.where(usable, way, 0).to(g.dtype) for way, g in zip(ways, gradients, strict=True)]


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Restore the model's buffers on exit, and hold every ImageNorm within the context."""
    places = [(m, name, buffer) for m in model.modules() for name, buffer in m.named_buffers(recurse=False)]
    buffers = [buffer for _, _, buffer in places]
    before = _copies(buffers)
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, ImageNorm):
                stack.enter_context(module.held())
        try:
            yield
        finally:
            _copy(before, buffers)
            for module, name, buffer in places:
                setattr(module, name, buffer)


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    copies = [torch.empty_like(tensor) for tensor in tensors]
    _copy(tensors, copies)
    return copies


@torch.no_grad()
def _copy(values: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy all tensors of one dtype at once: on a GPU one kernel instead of one per tensor."""
    for dtype in {tensor.dtype for tensor in tensors}:
        pairs = [pair for pair in zip(tensors, values, strict=True) if pair[0].dtype == dtype]
        torch._foreach_copy_([tensor for tensor, _ in pairs], [value for _, value in pairs])
