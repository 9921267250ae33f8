"""The training settings, and a site's round as a method sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from harmofl.federated.batch import Batch
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate
from harmofl.federated.model import normalizer_of
from harmofl.federated.tensors import Arrays
from harmofl.optim.mixed_precision import LossScale
from harmofl.optim.optimizer_state import load_optimizer_arrays
from harmofl.spectral.image_norm import ImageNorm
from harmofl.types import Precision, WeightFormat
from harmofl.utils.seeding import rng

if TYPE_CHECKING:
    from harmofl.data.site import Site
    from harmofl.federated.recording import Recorder

CPU = torch.device("cpu")
LossFunction = Callable[[Tensor, Tensor], Tensor]
Protect = Callable[[ClientUpdate, Broadcast], ClientUpdate]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training settings, the same at every site.

    Args:
        model: the module that weights are loaded into, from `Method.model`; one per worker, reused by every site.
        loss: (logits, targets) -> scalar.
        optimizer: parameters -> a torch optimizer; its state stays at the site between rounds.
        epochs: E, passes over the site's training images a round, at least 1.
        batch_size: images a step, at least 1.
        last_alone: see `batch_indices`.
        augment: (batch, generator) -> batch, or None.
        seed: seed of image order, augmentation and dropout, combined with round and site.
        device: device of the training steps.
        precision: number format in which the network computes.
        protect: changes an update before it leaves the site, such as `harmofl.privacy.Noise`, or None.
        updates: format of the weights in an update, see `harmofl.federated.compression`.
        drift: True to measure the distance of the weights to the global ones after each step.
        recorder: records steps, see `harmofl.federated.recording`, or None.
    """

    model: nn.Module
    loss: LossFunction
    optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]
    epochs: int = 1
    batch_size: int = 16
    last_alone: bool = False
    augment: Callable[[Batch, np.random.Generator], Batch] | None = None
    seed: int = 0
    device: torch.device = CPU
    precision: Precision = "float32"
    protect: Protect | None = None
    updates: WeightFormat = "float32"
    drift: bool = False
    recorder: Recorder | None = None


@dataclass
class ClientContext:
    """The mutable state of a site's round, as a method sees it; discarded after the round.

    Args:
        site: the site and its images.
        training: the training settings.
        broadcast: the server's message.
        state: the client state of the site's last round.
        model: the model with global and personal weights loaded, on the training device, in training mode.
        optimizer: the optimizer with the site's moments loaded.
        num_steps: number of batches processed so far this round.
        taken: number of steps taken, less than `num_steps` where a gradient overflowed in float16.
        round_state: the method's state between the steps of the round: tensors, lists of tensors, modules.
        scale: scale of the loss in the backward pass, in float16.
    """

    site: Site
    training: Training
    broadcast: Broadcast
    state: ClientState
    model: nn.Module
    optimizer: torch.optim.Optimizer
    num_steps: int = 0
    taken: int = 0
    round_state: dict[str, Any] = field(default_factory=dict)
    scale: LossScale | None = None

    @cached_property
    def names(self) -> list[str]:
        """The names of the params, in the model's order."""
        return [name for name, param in self.model.named_parameters() if param.requires_grad]

    @cached_property
    def params(self) -> list[nn.Parameter]:
        """The site's params w_i."""
        return [param for param in self.model.parameters() if param.requires_grad]

    @cached_property
    def global_params(self) -> list[Tensor]:
        """The global params w that the server sent, on the training device."""
        held: list[Tensor] = self.round_state.setdefault("global", self.on_device(self.broadcast.weights))
        return held

    def on_device(self, arrays: Arrays) -> list[Tensor]:
        """Return one tensor per param, in the order and layout of `params`; zeros where `arrays` has none."""
        pairs = zip(self.names, self.params, strict=True)
        return [torch.empty_like(p).copy_(arrays[n]) if n in arrays else torch.zeros_like(p) for n, p in pairs]

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Undo `on_device`: return the tensors by param name, on the CPU, in the contiguous layout of messages."""
        plain = torch.contiguous_format
        pairs = zip(self.names, tensors, strict=True)
        return {n: t.detach().to("cpu", copy=True, memory_format=plain) for n, t in pairs}

    @property
    def grads(self) -> list[Tensor]:
        """The gradients of the params; zeros for a param without one."""
        for param in self.params:
            if param.grad is None:
                param.grad = torch.zeros_like(param)
        return [param.grad for param in self.params if param.grad is not None]

    @property
    def has_gradient(self) -> bool:
        """True if a param has a gradient, or there are no params."""
        return not self.params or any(param.grad is not None for param in self.params)

    def is_unchanged(self, names: Iterable[str]) -> bool:
        """Return True if these entries of the model have the values with which the round began."""
        before, now = site_weights(self.broadcast.weights, self.state), self.model.state_dict()
        return all(torch.equal(now[name].cpu(), before[name]) for name in names)

    @property
    def total_steps(self) -> int:
        """The number of steps in a round at this site."""
        return self.training.epochs * len(self._epoch(np.random.default_rng(0)))

    @property
    def full_batches(self) -> int:
        """The number of batches of the full size in a round at this site."""
        full = sum(len(index) == self.training.batch_size for index in self._epoch(np.random.default_rng(0)))
        return self.training.epochs * full

    @torch.no_grad()
    def drift(self) -> list[Tensor]:
        """Return w_i - w, one tensor per param."""
        return list(torch._foreach_sub(list[Tensor](self.params), self.global_params))

    def normalized(self, batch: Batch) -> Batch:
        """Return the batch with its images normalized, if the model has a normalizer."""
        layer = self.normalizer
        return batch if layer is None else replace(batch, images=layer(batch.images))

    @property
    def normalizer(self) -> ImageNorm | None:
        """The model's normalizer, or None."""
        return normalizer_of(self.model)

    @property
    def network(self) -> nn.Module:
        """The model without its normalizer."""
        return self.model.get_submodule("network")

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the network on normalized images."""
        return self.training.loss(self.network(batch.images), batch.targets)

    def backward(self, loss: Tensor, model: nn.Module | None = None) -> None:
        """Backpropagate a loss to the params, or to those of `model`; they must have no gradients yet."""
        if self.scale is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self.scale.backward(loss, self.params if model is None else model.parameters())

    @property
    def overflowed(self) -> bool:
        """True if a gradient of this step overflowed in float16, so that the step is skipped."""
        return self.scale is not None and self.scale.overflowed

    def step(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Take a step with the site's optimizer, or another one, unless a gradient overflowed in float16."""
        if self.scale is None or self.scale.settle():
            (optimizer or self.optimizer).step()
            self.taken += optimizer is None

    def batches(self) -> Iterator[Batch]:
        """Yield the round's training batches; order and augmentation depend on (seed, round, site) alone."""
        for epoch in range(self.training.epochs):
            random = rng(self.training.seed, "batches", self.broadcast.round, self.site.name, epoch)
            for index in self._epoch(random):
                batch = self.site.train.training_batch(index, random)
                yield self.to_device(self.training.augment(batch, random) if self.training.augment else batch)

    def _epoch(self, random: np.random.Generator) -> list[np.ndarray]:
        """Return the indices of each batch of one epoch, see `Split.items`; each is of one of the merged sites."""
        parts, size = self.site.train.parts or (self.site.train.items,), self.training.batch_size
        starts = np.cumsum((0, *parts[:-1]))
        batches = [
            start + index
            for start, count in zip(starts, parts, strict=True)
            for index in batch_indices(random.permutation(count), size, self.training.last_alone)
        ]
        return batches if len(parts) == 1 else [batches[i] for i in random.permutation(len(batches))]

    def to_device(self, batch: Batch) -> Batch:
        """Return the batch on the training device."""
        to = self.training.device
        images, targets = batch.images, batch.targets
        if to.type == "cuda":  # only copies from pinned memory are asynchronous
            images, targets = images.pin_memory(), targets.pin_memory()
        return Batch(images.to(to, non_blocking=True), targets.to(to, non_blocking=True))


def batch_indices(order: np.ndarray, batch_size: int, last_alone: bool = False) -> list[np.ndarray]:
    """Cut the order into batches; a single index left over joins the batch before it, unless `last_alone` is True.

    Batch statistics of one image are degenerate, and undefined where a feature map is one pixel.
    """
    cuts = list(range(batch_size, len(order), batch_size))
    if cuts and batch_size > 1 and not last_alone and len(order) - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts)


def site_weights(weights: Arrays, state: ClientState) -> dict[str, Tensor]:
    """Return the weights that a site uses: its personal weights over the global ones."""
    return {**weights, **state.get("weights", {})}


def build_context(site: Site, broadcast: Broadcast, state: ClientState, training: Training) -> ClientContext:
    """Load the weights and optimizer moments for the start of a site's round."""
    model = training.model.to(training.device).train()
    model.zero_grad()  # of another site
    model.load_state_dict(site_weights(broadcast.weights, state))
    optimizer = training.optimizer(model.parameters())
    load_optimizer_arrays(model, optimizer, state.get("optimizer", {}))
    scale = LossScale(state.get("scale", {})) if training.precision == "float16" else None
    return ClientContext(site, training, broadcast, state, model, optimizer, scale=scale)
