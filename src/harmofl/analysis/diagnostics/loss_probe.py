"""Losses of the sites on fixed batches, with their gradients, their rise around w and their curvature."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harmofl.analysis.diagnostics.curvature import STEPS, flat_vector, hessian_product, loss_rise, top_eigenvalue
from harmofl.data.site import Site
from harmofl.errors import ConfigError
from harmofl.federated.batch import Batch
from harmofl.federated.client import LossFunction
from harmofl.federated.tensors import Arrays
from harmofl.optim.mixed_precision import computing
from harmofl.utils.seeding import rng

FEWEST, MOST = 8, 64
"""Smallest and largest number of images in a fixed batch."""
SHARE = 10
"""A fixed batch has 1 / SHARE of the images that a site trains on in a round, on average."""
SELDOM = 20
"""Hessians take 1 / SELDOM of the passes of training, apart from the Hessian of the last round."""

Weights = Callable[[str], Arrays]
"""Site -> the complete state dict at which its loss is computed."""


def batch_size(sites: Sequence[Site], epochs: int) -> int:
    """Return the size of a site's fixed batch; it is independent of the method, so that methods are comparable."""
    seen = epochs * sum(len(site.train) for site in sites)
    return min(max(seen // (SHARE * len(sites)), FEWEST), MOST) // 2 * 2


def hessian_every(sites: Sequence[Site], epochs: int) -> int:
    """Return the number of rounds between Hessians; the last round always has one."""
    passes = 3 * STEPS * len(sites) * batch_size(sites, epochs) / 2
    return max(1, round(SELDOM * passes / (epochs * sum(len(site.train) for site in sites))))


def fixed_batch(site: Site, count: int, seed: int) -> tuple[Batch, ...]:
    """Draw `count` training images, split into two halves, or in one batch if there are fewer than four."""
    chosen = rng(seed, "diagnostics", site.name).permutation(len(site.train))[:count]
    if len(chosen) < 4:
        return (site.train.batch(chosen),)
    half = len(chosen) // 2
    return site.train.batch(chosen[:half]), site.train.batch(chosen[half : 2 * half])


def measuring(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model that computes the training loss deterministically.

    BatchNorm uses batch statistics as in training, dropout and feature augmentation are off, no amplitude is learnt.
    """
    copied = deepcopy(model).eval()
    for module in copied.modules():
        module._compiled_call_impl = None  # compiled code cannot be differentiated twice
        if isinstance(module, _BatchNorm):
            module.train()
    return copied


@dataclass(frozen=True)
class ProbeResult:
    """Results of one pass over the fixed batches, by site.

    Args:
        losses: mean loss over the batches.
        rises: see `harmofl.analysis.diagnostics.curvature.loss_rise`; in the direction of the site's own gradient.
        gradients: flat gradients of the requested params, one a batch.
    """

    losses: Mapping[str, float]
    rises: Mapping[str, float]
    gradients: Mapping[str, tuple[Tensor, ...]]

    def mean_gradient(self) -> Tensor:
        """Return the gradient of F = (1/N) sum_i F_i."""
        return torch.stack([torch.stack(own).mean(dim=0) for own in self.gradients.values()]).mean(dim=0)


class Probe:
    """Computes losses and their derivatives on a copy of the model, in float32 and without random draws.

    Args:
        model: the model that trains; copied.
        loss: (logits, targets) -> scalar.
        batches: batches by site, see `fixed_batch`; the batches of one site have the same size.
        device: the device to compute on.
    """

    def __init__(
        self, model: nn.Module, loss: LossFunction, batches: Mapping[str, tuple[Batch, ...]], device: torch.device
    ) -> None:
        self.model, self._loss, self._device = measuring(model).to(device), loss, device
        self._batches = {
            site: tuple(Batch(b.images.to(device), b.targets.to(device)) for b in own) for site, own in batches.items()
        }

    def params(self, names: Sequence[str]) -> list[nn.Parameter]:
        """Return the params with these names."""
        own = dict(self.model.named_parameters())
        return [own[name] for name in names]

    def check(self) -> None:
        """Raise ConfigError unless the network can be differentiated twice."""
        trained = [param for param in self.model.parameters() if param.requires_grad]
        batch = next(iter(self._batches.values()))[0]
        try:
            first = torch.autograd.grad(self._value(batch), trained, create_graph=True, allow_unused=True)
            total = torch.stack([gradient.square().sum() for gradient in first if gradient is not None]).sum()
            if total.requires_grad:  # the whole graph: a backward to the params alone skips nodes without a derivative
                total.backward()  # type: ignore[no-untyped-call]
            self.model.zero_grad()
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"run.diagnostics: the network must be twice differentiable, but PyTorch says {reason}; set it to false"
            ) from None

    def measure(self, weights: Weights, names: Sequence[str]) -> ProbeResult:
        """Compute the losses, rises and gradients of all sites.

        Args:
            weights: the weights of each site.
            names: names of the params whose gradients are returned; the rise uses the gradients of all params.
        """
        losses, rises, gradients = {}, {}, {}
        trained = [param for param in self.model.parameters() if param.requires_grad]
        wanted = [[p is param for p in trained].index(True) for param in self.params(names)]
        with computing("float32", self._device):
            for site in self._batches:
                self.model.load_state_dict(weights(site))
                own, values = [], []
                for batch in self._batches[site]:
                    value = self._value(batch)
                    own.append(torch.autograd.grad(value, trained, allow_unused=True, materialize_grads=True))
                    values.append(float(value.detach()))
                mean = [torch.stack(parts).mean(dim=0) for parts in zip(*own, strict=True)]
                losses[site] = sum(values) / len(values)
                rises[site] = loss_rise(self.model, trained, mean, partial(self._mean, site), losses[site])
                gradients[site] = tuple(flat_vector([parts[k] for k in wanted]).cpu() for parts in own)
        return ProbeResult(losses, rises, gradients)

    def eigenvalue(
        self, weights: Weights, names: Sequence[str], start: Tensor, steps: int = STEPS
    ) -> tuple[float, float]:
        """Return a lower bound of the top eigenvalue of the Hessian of F = (1/N) sum_i F_i, and its residual.

        F is computed on the first half of each fixed batch.

        Args:
            weights: the weights of each site.
            names: names of the params that the Hessian is taken with respect to.
            start: the gradient of F at the weights, flat; noise is added to it.
            steps: steps of the Lanczos iteration.
        """
        params = self.params(names)

        def product(vector: Tensor) -> Tensor:
            total = torch.zeros_like(vector)
            for site, own in self._batches.items():
                self.model.load_state_dict(weights(site))
                total += hessian_product(self._value(own[0]), params, vector)
            return total / len(self._batches)

        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
        begin = noise / noise.norm() + start.cpu() / start.norm().clamp_min(1e-30).cpu()
        with computing("float32", self._device):
            return top_eigenvalue(product, begin.to(self._device), steps)

    def _value(self, batch: Batch) -> Tensor:
        return self._loss(self.model(batch.images), batch.targets)

    def _mean(self, site: str) -> float:
        return sum(float(self._value(batch)) for batch in self._batches[site]) / len(self._batches[site])
