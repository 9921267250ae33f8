"""What a site sent, looked at before it is averaged: a server does not believe what it receives."""

import math
from collections.abc import Collection, Iterator

from harmofl.arrays import Arrays, is_finite
from harmofl.errors import TrainingError
from harmofl.exchange import Broadcast, ClientUpdate


def check_update(update: ClientUpdate, broadcast: Broadcast, shared: Collection[str]) -> None:
    """Compare an update with what its site was sent.

    Every shared entry must be there, no other, each with the shape and the dtype that was sent (an amplitude that was
    sent empty may have any shape) and finite; so must all extras be, and the numbers beside them.

    Args:
        update: what the site sent.
        broadcast: what it had been sent.
        shared: the names of the entries that the method shares.

    Raises:
        TrainingError: the first thing that does not hold, naming the site.
    """
    fault = next(_faults(update, broadcast.weights, shared), None)
    if fault:
        raise TrainingError(f"{update.site}: {fault}, in the update of round {broadcast.round}")


def _faults(update: ClientUpdate, sent: Arrays, shared: Collection[str]) -> Iterator[str]:
    if update.num_samples < 1:
        yield f"the number of images must be at least 1, got {update.num_samples}"
    if update.num_steps < 0 or update.memory < 0:
        yield f"steps and bytes must be at least 0, got {update.num_steps} and {update.memory}"
    if not math.isfinite(update.loss):
        yield f"the loss must be finite, got {update.loss}"
    if odd := update.weights.keys() ^ set(shared):
        yield f"entries must be those that the method shares, but {min(odd)!r} is only on one side"
    for name, value in update.weights.items():
        if value.dtype != sent[name].dtype:
            yield f"{name} must be {sent[name].dtype}, got {value.dtype}"
        elif sent[name].numel() and value.shape != sent[name].shape:
            yield f"{name} must have the shape {tuple(sent[name].shape)}, got {tuple(value.shape)}"
        elif not is_finite(value):
            yield f"{name} must be finite, but is not"
    for group, arrays in update.extras.items():
        for name, value in arrays.items():
            if not is_finite(value):
                yield f"{group} of {name} must be finite, but is not"
