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
    ready: SimpleQueue[_Place] = SimpleQueue()
    for _ in range(workers):
        ready.put(_Place(model, loss, weights, names, plane, batches, device))

    def one(point: np.ndarray) -> float:
        place = ready.get()
        try:
            return place.loss(float(point[0]), float(point[1]))
        finally:
            ready.put(place)
            done()

    before = torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            return np.array(list(pool.map(one, points)))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)


class _Place:
    """A copy of the model for one worker, moved to points of the plane."""

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        weights: Arrays,
        names: Sequence[str],
        plane: Plane,
        batches: Sequence[Batch],
        device: torch.device,
    ) -> None:
        self._model, self._loss, self._device = deepcopy(model).to(device), loss, device
        self._model.load_state_dict(weights)
        own = dict(self._model.named_parameters())
        self._params = [own[name].detach() for name in names]
        self._center = [tensor.to(device) for tensor in plane.center]
        self._along = [[tensor.to(device) for tensor in direction] for direction in plane.directions]
        self._batches = [Batch(batch.images.to(device), batch.targets.to(device)) for batch in batches]

    @torch.no_grad()
    def loss(self, a: float, b: float) -> float:
        torch._foreach_copy_(self._params, self._center)
        for share, direction in zip((a, b), self._along, strict=True):
            torch._foreach_add_(self._params, direction, alpha=share)
        total = 0.0
        with computing("float32", self._device):
            for batch in self._batches:
                total += float(self._loss(self._model(batch.images), batch.targets)) * len(batch)
        return total / sum(map(len, self._batches))
