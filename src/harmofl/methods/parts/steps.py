"""Steps: the weights at which the gradient of a step is taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from harmofl.errors import ConfigError
from harmofl.federated.batch import Batch
from harmofl.federated.client import ClientContext
from harmofl.methods.hyperparameters import Hyperparameters
from harmofl.optim.sharpness import displaced, perturbation

if TYPE_CHECKING:
    from harmofl.methods.fedavg import FedAvg


class Step(Hyperparameters):
    """Base class of the steps; each takes the gradient at other weights."""

    @property
    def passes(self) -> float:
        """Mean number of gradients per step: the cost relative to FedAvg."""
        return 1

    @property
    def records(self) -> bool:
        """True if all steps do the same work, so that they may be recorded; see `FedAvg.records`."""
        return False

    def check(self, model: nn.Module) -> None:
        """Raise ConfigError if the step does not fit the model."""

    def gradient(self, method: FedAvg, client: ClientContext, batch: Batch) -> Tensor:
        """Compute the gradient to step with; return the objective, detached."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Plain(Step):
    """g = grad f_i(w)."""

    @property
    def records(self) -> bool:
        """Return True."""
        return True

    def gradient(self, method: FedAvg, client: ClientContext, batch: Batch) -> Tensor:
        """Compute the gradient at w."""
        return method.backward(client, batch)


@dataclass(frozen=True, kw_only=True)
class SAM(Step):
    """grad f_i(w + delta), delta = rho g / ||g||_2, g = grad f_i(w): HarmoFL's second half (AAAI 2022, Eq 6-7).

    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021.
    https://arxiv.org/abs/2010.01412

    Args:
        rho: length of delta (alpha in HarmoFL), at least 0; 0 gives plain steps.
        ascent: "fresh" takes g from the current batch at w, which costs another pass; "previous" takes the gradient of
            the previous step, which costs nothing (the round's first step is plain), and returns the objective at
            w + delta.
        ascent_every: perturb every k-th step of a round, including the first; 1 perturbs all.
        params_regex: perturb only params whose name contains a match of this regular expression; "" perturbs all.
    """

    ranges: ClassVar[Mapping[str, str]] = {
        "rho": "[0, inf)",
        "ascent": "fresh or previous",
        "ascent_every": "whole [1, inf)",
        "params_regex": "any text",
    }
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"rho": (0.0005, 1)}
    rho: float = 0.05
    ascent: Literal["fresh", "previous"] = "fresh"
    ascent_every: int = 1
    params_regex: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            re.compile(self.params_regex)
        except (re.error, TypeError) as error:
            wrong = f"got {self.params_regex!r} ({error})"
            raise ConfigError(f"params_regex must be a regular expression, {wrong}") from None

    @property
    def passes(self) -> float:
        """Mean number of gradients per step: up to 2."""
        return 1 + 1 / self.ascent_every if self.rho > 0 and self.ascent == "fresh" else 1

    @property
    def records(self) -> bool:
        """True if every step perturbs, by a gradient of its own batch, or none does."""
        return self.rho == 0 or (self.ascent == "fresh" and self.ascent_every == 1)

    def check(self, model: nn.Module) -> None:
        """Raise ConfigError if `params_regex` is found in no param's name."""
        names = [name for name, _ in model.named_parameters()]
        if names and not any(re.search(self.params_regex, name) for name in names):
            raise ConfigError(f"params_regex must match a param's name, such as {names[0]}, got {self.params_regex!r}")

    def gradient(self, method: FedAvg, client: ClientContext, batch: Batch) -> Tensor:
        """Compute the gradient at w + delta, or at w in a plain step."""
        if self.rho == 0 or client.num_steps % self.ascent_every:
            return method.backward(client, batch)
        named = zip(client.names, client.params, strict=True)
        moved = [param for name, param in named if re.search(self.params_regex, name)]
        if self.ascent == "previous":
            known = [param for param in moved if client.num_steps and param.grad is not None]
            delta = perturbation([param.grad for param in known if param.grad is not None], self.rho)
            with displaced(client.params, known, delta):
                return method.backward(client, batch)
        loss, g = self._first_pass(method, client, batch, moved)
        with displaced(client.model, moved, perturbation(g, self.rho)):
            method.backward(client, batch)
        return loss

    def _first_pass(
        self, method: FedAvg, client: ClientContext, batch: Batch, moved: list[nn.Parameter]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the objective and its gradient at the params that move; backpropagate no further than these."""
        if len(moved) == len(client.params):
            return method.backward(client, batch), client.grads
        loss = method.objective(client, batch)
        large = loss * client.scale.factor if client.scale else loss  # delta keeps its length
        return loss.detach(), list(torch.autograd.grad(large, moved, allow_unused=True, materialize_grads=True))


@dataclass(frozen=True, kw_only=True)
class ASAM(Step):
    """grad f_i(w + rho T^2 g / ||T g||_2), T = |w| + eta for entries called weight, 1 for the others.

    Kwon et al., "ASAM", ICML 2021, Algorithm 1. https://arxiv.org/abs/2102.11600

    Args:
        rho: length of the perturbation, at least 0; 0 gives plain steps.
        eta: constant added to |w|, at least 0.
    """

    ranges: ClassVar[Mapping[str, str]] = {"rho": "[0, inf)", "eta": "[0, inf)"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"rho": (0.005, 5)}
    rho: float = 0.7
    eta: float = 0.2

    @property
    def passes(self) -> float:
        """Number of gradients per step: 2, or 1 for rho = 0."""
        return 2 if self.rho > 0 else 1

    @property
    def records(self) -> bool:
        """Return True."""
        return True

    def gradient(self, method: FedAvg, client: ClientContext, batch: Batch) -> Tensor:
        """Compute the gradient after the adaptive perturbation."""
        loss = method.backward(client, batch)
        if self.rho > 0:
            with torch.no_grad():
                T = [self._scale(name, w) for name, w in zip(client.names, client.params, strict=True)]
                e = torch._foreach_mul(perturbation(list(torch._foreach_mul(client.grads, T)), self.rho), T)
            with displaced(client.model, client.params, e):
                method.backward(client, batch)
        return loss

    def _scale(self, name: str, w: Tensor) -> Tensor:
        return w.abs() + self.eta if name.endswith("weight") else torch.ones_like(w)
