"""Perturbed step (HarmoFL Eq 6-7) and three ways to make it cheaper, see the settings of `FedAvg`.

Jiang, Wang, Dou, "HarmoFL", AAAI 2022; Foret et al., "Sharpness-Aware Minimization", ICLR 2021.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harmofl.errors import ConfigError
from harmofl.federated.batch import Batch
from harmofl.federated.client import ClientContext
from harmofl.optim.sharpness import climb, displaced

if TYPE_CHECKING:
    from harmofl.methods.fedavg import FedAvg


def check_ascent(method: FedAvg) -> None:
    """Raise ConfigError if the settings of the climb are invalid, or the method does not use them."""
    try:
        re.compile(method.climb_part)
    except (re.error, TypeError) as error:
        raise ConfigError(f"climb_part must be a regular expression, got {method.climb_part!r} ({error})") from None
    if not method.climbs_as_said and (method.climb, method.climb_every, method.climb_part) != ("fresh", 1, ""):
        its = f"{type(method).__name__}'s climb is its own"
        raise ConfigError(f"{its}; leave climb, climb_every and climb_part out")


def remarks(method: FedAvg) -> list[str]:
    """Return a remark if settings of the climb have no effect."""
    if method.alpha or (method.climb, method.climb_every, method.climb_part) == ("fresh", 1, ""):
        return []
    return ["climb, climb_every and climb_part are of perturbed steps, but alpha is 0: they change nothing"]


def check_part(method: FedAvg, model: nn.Module) -> None:
    """Raise ConfigError if `climb_part` is found in no param's name."""
    names = [name for name, _ in model.named_parameters()]
    if names and not any(re.search(method.climb_part, name) for name in names):
        raise ConfigError(f"climb_part must be in a param's name, such as {names[0]}, got {method.climb_part!r}")


def gradient(method: FedAvg, client: ClientContext, batch: Batch) -> Tensor:
    """Compute the gradient at w + delta, or at w in a plain step; return the objective, see `FedAvg.gradient`."""
    if method.alpha == 0 or client.num_steps % method.climb_every:
        return method.backward(client, batch)
    named = zip(client.names, client.params, strict=True)
    moved = [param for name, param in named if re.search(method.climb_part, name)]
    if method.climb == "previous":
        known = [param for param in moved if client.num_steps and param.grad is not None]
        with displaced(client.params, known, climb([p.grad for p in known if p.grad is not None], method.alpha)):
            return method.backward(client, batch)
    loss, way = _way_up(method, client, batch, moved)
    with displaced(client.model, moved, climb(way, method.alpha)):
        method.backward(client, batch)
    return loss


def _way_up(
    method: FedAvg, client: ClientContext, batch: Batch, moved: list[nn.Parameter]
) -> tuple[Tensor, list[Tensor]]:
    """Return the objective and its gradient at the params that climb; backpropagate no further than these."""
    if len(moved) == len(client.params):
        return method.backward(client, batch), client.grads
    loss = method.objective(client, batch)
    large = loss * client.scale.factor if client.scale else loss  # the climb keeps its length
    return loss.detach(), list(torch.autograd.grad(large, moved, allow_unused=True, materialize_grads=True))
