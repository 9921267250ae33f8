"""Training of one site in one round, the same under every backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from harmofl.errors import ConfigError, TrainingError
from harmofl.federated.batch import Batch
from harmofl.federated.finite_checks import AT_A_SITE, check_finite, naming_overflow
from harmofl.federated.messages import LATE, Broadcast, ClientState, ClientUpdate
from harmofl.federated.model import AMPLITUDE, is_sent, normalizer_of, role_of
from harmofl.federated.tensors import Arrays, state_of
from harmofl.optim.mixed_precision import LossScale, computing
from harmofl.optim.optimizer_state import load_optimizer_arrays, optimizer_arrays
from harmofl.spectral.image_norm import ImageNorm
from harmofl.types import Precision, Role
from harmofl.utils.seeding import rng, torch_seed

if TYPE_CHECKING:
    from harmofl.data.site import Site
    from harmofl.federated.method import Method

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
        drift: True to measure the distance of the weights to the global ones after each step.
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
    drift: bool = False


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
                batch = self.site.train.batch(index)
                yield self.to_device(self.training.augment(batch, random) if self.training.augment else batch)

    def _epoch(self, random: np.random.Generator) -> list[np.ndarray]:
        """Return the image indices of each batch of one epoch; each batch has images of one of the merged sites."""
        parts, size = self.site.train.parts or (len(self.site.train),), self.training.batch_size
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


def run_client(
    method: Method, site: Site, broadcast: Broadcast, state: ClientState, training: Training
) -> tuple[ClientUpdate, ClientState]:
    """Train one site for one round.

    Args:
        method: the federated learning method.
        site: the site and its images.
        broadcast: the server's message for this round.
        state: the client state that this function returned for the site's last round; empty at first.
        training: the training settings.

    Returns:
        The update for the server, and the client state for the site's next round.

    Raises:
        TrainingError: if a loss, a weight or another number that is sent or kept is not finite, naming site and round.
    """
    device, where, when = training.device, f"{site.name}: ", f"round {broadcast.round} of {method}"
    with (
        naming_overflow(where, when, AT_A_SITE),
        torch_seed(training.seed, "site", broadcast.round, site.name, device=device),
        computing(training.precision, device),
    ):
        client = build_context(site, broadcast, state, training)
        layer = client.normalizer
        if layer is not None:
            layer.learn_beside(bool(layer.frozen) and bool(layer.count) and "optimizer" not in state)
        method.prepare(client)
        loss, drift = _take_steps(client, method)
        extras, kept = method.report(client)
        if layer is not None and layer.beside is not None:
            extras = {**extras, LATE.name: {AMPLITUDE: layer.beside.cpu()}}
        memory = held_bytes(client.round_state)
    weights = state_of(client.model)
    if not (extras or kept):
        _check_trained(client, method)
    sent = [name for name in weights if is_sent(method, client.model, name, broadcast.round)]
    shared = {name: weights[name] for name in sent}
    check_finite({"": weights, **extras, **kept}, where, when, AT_A_SITE)
    update = ClientUpdate(site.name, shared, len(site.train), client.taken, loss, extras, memory, drift=drift)
    own = {
        name: value
        for name, value in weights.items()
        if name not in shared and not torch.equal(value, broadcast.weights[name])
    }
    if training.protect:
        update = training.protect(update, broadcast)
    if client.scale:
        kept = {**kept, "scale": client.scale.state()}
    return update, {**kept, "optimizer": optimizer_arrays(client.model, client.optimizer), "weights": own}


def _check_trained(client: ClientContext, method: Method) -> None:
    """Raise ConfigError if a round that reports nothing left no gradient, or took no step, and changed nothing."""
    stepped = client.taken or client.scale
    if not (client.has_gradient and stepped) and client.is_unchanged(client.model.state_dict()):
        raise ConfigError(
            f"{method}: local_step() must train, but round {client.broadcast.round} changed nothing at "
            f"{client.site.name}; call backward(client, batch), then client.step()"
        )


def _take_steps(client: ClientContext, method: Method) -> tuple[float, float]:
    """Take the round's steps; return the mean loss, and the mean of ||w_{i,k} - w||^2 or NaN, see `ClientUpdate`."""
    losses, away = [], []
    start = _shared_start(client, method) if client.training.drift else {}
    for batch in client.batches():
        losses.append(method.local_step(client, batch))
        client.num_steps += 1
        if start:
            away.append(_squared_distance(client.params, start))
    return _mean_loss(losses, client, method), float(torch.stack(away).mean()) if away else math.nan


def _shared_start(client: ClientContext, method: Method) -> dict[int, Tensor]:
    """Return the global values of the shared params, on the device, by param index."""
    sent = client.broadcast.weights
    shared = [k for k, name in enumerate(client.names) if role_of(method, client.model, name) is Role.SHARED]
    return {k: torch.empty_like(client.params[k]).copy_(sent[client.names[k]]) for k in shared}


@torch.no_grad()
def _squared_distance(params: Sequence[Tensor], start: Mapping[int, Tensor]) -> Tensor:
    """Return ||w_{i,k} - w||^2."""
    differences = torch._foreach_sub([params[k].detach() for k in start], list(start.values()))
    return torch.stack(torch._foreach_norm(differences)).square().sum()


def held_bytes(held: object) -> int:
    """Return the bytes of all tensors in tensors, modules, optimizers, and lists or dicts of these."""
    if isinstance(held, Tensor):
        return held.numel() * held.element_size()
    if isinstance(held, nn.Module):
        return held_bytes(held.state_dict())
    if isinstance(held, torch.optim.Optimizer):
        return held_bytes(dict(held.state))
    if isinstance(held, Mapping):
        return sum(map(held_bytes, held.values()))
    return sum(map(held_bytes, held)) if isinstance(held, list | tuple) else 0


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


def _mean_loss(losses: list[Tensor], client: ClientContext, method: Method) -> float:
    values = torch.stack(losses).double().cpu()
    if not values.isfinite().all():
        step = int((~values.isfinite()).nonzero()[0]) + 1
        when = f"round {client.broadcast.round}, step {step} of {method}"
        got = f"{client.site.name}: the loss must be finite, got {float(values[step - 1])}"
        raise TrainingError(f"{got} in {when}; {AT_A_SITE}")
    return float(values.mean())
