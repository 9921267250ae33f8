"""Training of one site in one round, the same under every backend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harmofl.errors import ConfigError, TrainingError
from harmofl.federated.client_context import (
    ClientContext,
    LossFunction,
    Protect,
    Training,
    batch_indices,
    build_context,
)
from harmofl.federated.compression import RESIDUAL, kept_residual, rounded
from harmofl.federated.finite_checks import AT_A_SITE, check_finite, naming_overflow
from harmofl.federated.messages import LATE, Broadcast, ClientState, ClientUpdate
from harmofl.federated.model import AMPLITUDE, is_sent, role_of, trained_names
from harmofl.federated.recording import stepping
from harmofl.federated.tensors import state_of
from harmofl.optim.mixed_precision import computing
from harmofl.optim.optimizer_state import optimizer_arrays
from harmofl.types import Role
from harmofl.utils.seeding import torch_seed

if TYPE_CHECKING:
    from harmofl.data.site import Site
    from harmofl.federated.method import Method

__all__ = ["ClientContext", "LossFunction", "Protect", "Training", "batch_indices", "build_context", "run_client"]


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
    if training.updates != "float32":
        before, params = state.get(RESIDUAL, {}), trained_names(client.model)
        update, left = rounded(update, broadcast, training.updates, before, params)
        kept = {**kept, **kept_residual(left)}
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
    with stepping(client, method.local_step) as take:
        for batch in client.batches():
            losses.append(take(batch))
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


def _mean_loss(losses: list[Tensor], client: ClientContext, method: Method) -> float:
    values = torch.stack(losses).double().cpu()
    if not values.isfinite().all():
        step = int((~values.isfinite()).nonzero()[0]) + 1
        when = f"round {client.broadcast.round}, step {step} of {method}"
        got = f"{client.site.name}: the loss must be finite, got {float(values[step - 1])}"
        raise TrainingError(f"{got} in {when}; {AT_A_SITE}")
    return float(values.mean())
