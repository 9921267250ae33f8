"""Losses at the points of a plane, on fixed batches, several points at a time."""

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
    """The mean loss over the batches at w + a d_1 + b d_2, for every point (a, b).

    Args:
        model: as `harmofl.analysis.diagnostics.loss_probe.measuring` makes it; copied for each worker.
        loss: (logits, targets) -> scalar.
        weights: the whole state dict at w.
        names: of the params that move, in the order of the plane's tensors.
        plane: through w.
        points: (P, 2).
        batches: images and targets, on the CPU; batches of more images have more weight.
        workers: points computed at a time, each by one thread.
        device: where to compute.
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
    """A model of its own that goes to points of the plane."""

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
