"""Checks of a site's update before it is aggregated."""

import math
from collections.abc import Collection, Iterator
from itertools import chain

import torch

from harmofl.errors import TrainingError
from harmofl.federated.messages import LATE, Broadcast, ClientUpdate, Extra
from harmofl.federated.tensors import Arrays, is_finite, norm

LARGEST = 100.0
"""Largest ratio of the norm of the params sent back to the norm of those sent out (or to 1, if that is more)."""


def check_update(
    update: ClientUpdate,
    broadcast: Broadcast,
    shared: Collection[str],
    params: Collection[str] = (),
    extras: Collection[Extra] = (),
) -> None:
    """Check an update against the message that its site received.

    The update must have exactly the shared entries, each finite and with the shape and dtype that was sent (an
    amplitude that was sent empty may have any shape). The extras must be declared by the method and finite, and the
    numbers beside them in range.

    Args:
        update: the site's message.
        broadcast: the server's message to the site.
        shared: the names of the entries that the method shares.
        params: the names of the trained entries, whose norm may be at most `LARGEST` times the norm that was sent.
        extras: the extras that the method declares.

    Raises:
        TrainingError: for the first fault, naming the site.
    """
    faults = chain(_faults(update, broadcast.weights, shared, extras), _excess(update, broadcast.weights, params))
    fault = next(faults, None)
    if fault:
        raise TrainingError(f"{update.site}: {fault}, in the update of round {broadcast.round}")


def check_masked(update: ClientUpdate, broadcast: Broadcast, shared: Collection[str]) -> None:
    """Check names, shapes and numbers of a masked update, the part of `check_update` that masks allow."""
    sent = {name: broadcast.weights[name].to(torch.int64) for name in shared}
    fault = next(_faults(update, sent, shared, ()), None)
    if fault:
        raise TrainingError(f"{update.site}: {fault}, in the masked update of round {broadcast.round}")


def _excess(update: ClientUpdate, sent: Arrays, params: Collection[str]) -> Iterator[str]:
    names = [name for name in params if name in update.weights]
    before, after = (norm([arrays[name] for name in names]) for arrays in (sent, update.weights))
    if after > LARGEST * max(before, 1.0):
        yield f"the norm of its weights must be at most {LARGEST:g} times {max(before, 1.0):.3g}, got {after:.3g}"


def _faults(update: ClientUpdate, sent: Arrays, shared: Collection[str], extras: Collection[Extra]) -> Iterator[str]:
    if update.num_samples < 1:
        yield f"the number of images must be at least 1, got {update.num_samples}"
    if update.num_steps < 0 or update.memory < 0:
        yield f"steps and bytes must be at least 0, got {update.num_steps} and {update.memory}"
    if not math.isfinite(update.loss):
        yield f"the loss must be finite, got {update.loss}"
    if odd := update.weights.keys() ^ set(shared):
        yield f"entries must be those that the method shares, but {min(odd)!r} is missing or not one of them"
    for name, value in update.weights.items():
        if value.dtype != sent[name].dtype:
            yield f"{name} must be {sent[name].dtype}, got {value.dtype}"
        elif sent[name].numel() and value.shape != sent[name].shape:
            yield f"{name} must have the shape {tuple(sent[name].shape)}, got {tuple(value.shape)}"
        elif not is_finite(value):
            yield f"{name} must be finite, but is not"
    known = {extra.name: extra for extra in (*extras, LATE)}
    for group, arrays in update.extras.items():
        if group in known:
            yield from known[group].faults(update.site, arrays, sent)
        else:
            yield f"extras must be those of the method ({', '.join(e.name for e in extras) or 'none'}), got {group!r}"
