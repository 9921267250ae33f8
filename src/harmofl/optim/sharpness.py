"""Client weight perturbation: take the gradient a little uphill, and come back exactly.

Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 6-7; Foret et al., "Sharpness-Aware Minimization", ICLR 2021.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce

import torch
from torch import Tensor, nn

from harmofl.errors import ConfigError
from harmofl.spectral.amplitude import AmplitudeNorm
from harmofl.utils.validators import check_within


@contextmanager
def perturbed(target: nn.Module | Iterable[nn.Parameter], alpha: float) -> Iterator[None]:
    """Within, the weights stand at w + alpha g / ||g||_2, with g the gradients they had on entry (Eq 6).

    On entry the gradients are cleared, so that the body's backward leaves grad l(w + delta), the one to step with
    (Eq 7). On exit, also by an exception, weights and buffers (running statistics) have their old values to the bit.
    A zero gradient and one whose norm is not finite move nothing: the body then works at w itself.

        loss(model(x), y).backward()
        with perturbed(model, alpha=0.05):
            loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    Args:
        target: the model, or its parameters when it has no running statistics to protect. Parameters without a
            gradient stay where they are; ||g|| is one norm over all the others.
        alpha: length of the climb, at least 0; the paper's 0.05.

    Raises:
        ConfigError: if alpha is negative or not finite, or `target` is neither.
    """
    check_within("alpha", alpha, "[0, inf)")
    params = _with_gradient(target)
    with displaced(target, params, climb([p.grad for p in params if p.grad is not None], alpha)):
        yield


def _with_gradient(target: nn.Module | Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """The parameters that have a gradient, shared ones once."""
    params = list(target.parameters() if isinstance(target, nn.Module) else target)
    if isinstance(target, Tensor) or not all(isinstance(p, Tensor) for p in params):
        raise ConfigError(f"perturbed takes a model or its parameters, got {type(target).__name__}; try the model")
    return [p for p in dict.fromkeys(params) if p.grad is not None]


@contextmanager
def displaced(
    target: nn.Module | Iterable[nn.Parameter], params: Sequence[nn.Parameter], deltas: Sequence[Tensor]
) -> Iterator[None]:
    """Within, each of `params` stands at w + delta, without a gradient; `perturbed` is this with the climb of Eq 6.

    Args:
        target: the model whose buffers are not to move, or anything else if there are none to protect.
        params: what is moved.
        deltas: by how much, one of the same shape for each.
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
def climb(gradients: list[Tensor], alpha: float) -> list[Tensor]:
    """delta = alpha g / ||g||_2 with one norm over all tensors, taken at least in float32 (Eq 6).

    Zeros where alpha / ||g|| is not a finite number: for a zero gradient and for one that is not finite.
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
    """No buffer of the model moves, and no AmplitudeNorm learns."""
    places = [(m, name, buffer) for m in model.modules() for name, buffer in m.named_buffers(recurse=False)]
    buffers = [buffer for _, _, buffer in places]
    before = _copies(buffers)
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, AmplitudeNorm):
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
    """All of one dtype at once, which on a GPU is one kernel and not one a tensor."""
    for dtype in {tensor.dtype for tensor in tensors}:
        pairs = [pair for pair in zip(tensors, values, strict=True) if pair[0].dtype == dtype]
        torch._foreach_copy_([tensor for tensor, _ in pairs], [value for _, value in pairs])
