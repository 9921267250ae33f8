"""Losses at the points of a plane, on fixed batches, computed in parallel."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from queue import SimpleQueue

import numpy as np
import torch
from torch import nn

from harmofl.analysis.landscape.plane import Plane
from harmofl.federated.batch import Batch
from harmofl.federated.client import LossFunction
from harmofl.federated.tensors import Arrays
from harmofl.optim.mixed_precision import computing


def losses_at(
    model: nn.Module,
    loss: LossFunction,
    weights: Arrays,
    names: Sequence[str],
    plane: Plane,
    points: np.ndarray,
    batches: Sequence[Batch],
    *,
    workers: int,
    device: torch.device,
    done: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Return the mean loss over the batches at w + a d_1 + b d_2, for every point (a, b).

    Args:
        model: a model from `harmofl.analysis.diagnostics.loss_probe.measuring`; copied for each worker.
        loss: (logits, targets) -> scalar.
        weights: the complete state dict at w.
        names: names of the params that move, in the order of the plane's tensors.
        plane: a plane through w.
        points: (P, 2), the points (a, b).
        batches: images and targets, on the CPU; each batch is weighted by its number of images.
        workers: number of points computed in parallel, each by one thread.
        device: the device to compute on.
        done: called after each point, from any thread.

    Returns:
        (P,) float64; not finite where the network's output is not.
    """
    ready: SimpleQueue[Callable[[np.ndarray], float]] = SimpleQueue()
    for _ in range(workers):
        ready.put(_loss_of_place(deepcopy(model).to(device), loss, weights, names, plane, batches, device))

    def one(point: np.ndarray) -> float:
        loss_of = ready.get()
        try:
            return loss_of(point)
        finally:
            ready.put(loss_of)
            done()

    before = torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            return np.array(list(pool.map(one, points)))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)


def _loss_of_place(
    model: nn.Module,
    loss: LossFunction,
    weights: Arrays,
    names: Sequence[str],
    plane: Plane,
    batches: Sequence[Batch],
    device: torch.device,
) -> Callable[[np.ndarray], float]:
    """Return a function that moves the model to a point (a, b) of the plane and returns its mean loss there."""
    model.load_state_dict(weights)
    own = dict(model.named_parameters())
    params = [own[name].detach() for name in names]
    center, *along = [[tensor.to(device) for tensor in part] for part in (plane.center, *plane.directions)]
    moved = [Batch(batch.images.to(device), batch.targets.to(device)) for batch in batches]

    @torch.no_grad()
    def loss_of(point: np.ndarray) -> float:
        torch._foreach_copy_(params, center)
        for share, direction in zip(point.tolist(), along, strict=True):
            torch._foreach_add_(params, direction, alpha=share)
        with computing("float32", device):
            total = sum(float(loss(model(batch.images), batch.targets)) * len(batch) for batch in moved)
        return total / sum(map(len, moved))

    return loss_of
