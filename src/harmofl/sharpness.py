"""Client weight perturbation: take the gradient a little uphill, and come back exactly.

Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 6-7; Foret et al., "Sharpness-Aware Minimization", ICLR 2021.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from harmofl.amplitude import AmplitudeNorm
from harmofl.errors import ConfigError


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
        ConfigError: if alpha is negative or not finite.
    """
    check_alpha(alpha)
    model = target if isinstance(target, nn.Module) else None
    params = [p for p in (model.parameters() if model else target) if p.grad is not None]  # type: ignore[union-attr]
    with ExitStack() as stack:
        if model is not None:
            stack.enter_context(_still(model))
        stack.enter_context(_climbed(params, alpha))
        yield


def check_alpha(alpha: float) -> None:
    """Raise ConfigError unless alpha is a finite number of at least 0."""
    if not 0 <= alpha < float("inf"):
        raise ConfigError(f"alpha must be a finite number of at least 0, got {alpha}; the paper's is 0.05")


@contextmanager
def _climbed(params: list[nn.Parameter], alpha: float) -> Iterator[None]:
    gradients = [p.grad for p in params if p.grad is not None]
    with torch.no_grad():
        before = [p.clone() for p in params]
        for p, delta in zip(params, climb(gradients, alpha), strict=True):
            p.add_(delta)
            p.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for p, value in zip(params, before, strict=True):
                p.copy_(value)


def climb(gradients: list[Tensor], alpha: float) -> list[Tensor]:
    """delta = alpha g / ||g||_2 with one norm over all tensors (Eq 6); zeros where that norm is 0 or not finite."""
    if not gradients:
        return []
    wide = torch.promote_types(gradients[0].dtype, torch.float32)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).to(wide))
    usable = torch.isfinite(norm) & (norm > 0)
    scale = torch.where(usable, alpha / norm, 0)
    return [torch.where(usable, g * scale.to(g.dtype), 0) for g in gradients]


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """No buffer of the model moves, and no AmplitudeNorm learns."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, AmplitudeNorm):
                stack.enter_context(module.held())
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in before:
                    buffer.copy_(value)
