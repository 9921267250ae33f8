"""Whole rounds of HarmoFL as released against the procedure written out anew in NumPy and plain torch, in float64.

Two sites, three steps a round, two rounds: the first fixes each site's amplitude, the second uses the common one. The
networks and losses are those of the package, whose agreement with the released ones is tested elsewhere; everything
else is done here by hand: batches, quarter turns, Fourier transforms, perturbation, Adam and momentum, averages.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from harmofl.backends.sequential import run_round
from harmofl.data.site import Site, Split
from harmofl.data.transforms import augment_as_released
from harmofl.evaluation.losses import LOSSES
from harmofl.experiment.model_build import _as_bytes
from harmofl.federated.batch import Batch
from harmofl.federated.client import Training
from harmofl.methods import make_method
from harmofl.models import DenseNet, UNet
from harmofl.utils.seeding import rng

ROUNDS, ALPHA, DECAY = 2, 0.05, 1e-4
COUNTS = {"north": 9, "south": 12}  # as many as the smallest has, in batches of 4, 4 and a single image
SIDE = 64


def site(name: str, task: str) -> Site:
    random = np.random.default_rng(list(name.encode()))
    count = COUNTS[name]
    images = random.integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
    if task == "segmentation":
        targets = (random.random((count, SIDE, SIDE)) < 0.3).astype(np.uint8)
    else:
        targets = random.integers(0, 2, count)
    split = Split(images, targets, tuple(map(str, range(count))))
    return Site(name, task, ("no", "yes"), split, split, split)  # type: ignore[arg-type]


def normalized(images: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """The zero frequency of the common amplitude with each image's phase."""
    spectrum = np.fft.fft2(images)
    amplitude, phase = np.abs(spectrum), np.angle(spectrum)
    amplitude[..., 0, 0] = learnt[..., 0, 0]
    return np.fft.ifft2(amplitude * np.exp(1j * phase)).real


def gradients(network: nn.Module, weights: list[np.ndarray], x: np.ndarray, y: torch.Tensor, loss) -> list[np.ndarray]:
    for param, value in zip(network.parameters(), weights, strict=True):
        param.data = torch.from_numpy(value.copy())
        param.grad = None
    loss(network(torch.from_numpy(x)), y).backward()
    return [param.grad.numpy().copy() for param in network.parameters()]


class Sgd:
    """Momentum 0.9 and weight decay, as torch's: v <- 0.9 v + g + decay w, w <- w - lr v."""

    def __init__(self, lr: float) -> None:
        self.lr, self.v = lr, None

    def step(self, w: list[np.ndarray], g: list[np.ndarray]) -> list[np.ndarray]:
        g = [gradient + DECAY * value for gradient, value in zip(g, w, strict=True)]
        self.v = g if self.v is None else [0.9 * old + new for old, new in zip(self.v, g, strict=True)]
        return [value - self.lr * v for value, v in zip(w, self.v, strict=True)]


class Adam:
    """Kingma and Ba's, with weight decay added to the gradient."""

    def __init__(self, lr: float) -> None:
        self.lr, self.t, self.m, self.v = lr, 0, None, None

    def step(self, w: list[np.ndarray], g: list[np.ndarray]) -> list[np.ndarray]:
        g = [gradient + DECAY * value for gradient, value in zip(g, w, strict=True)]
        self.t += 1
        m, v = self.m or [0 * x for x in w], self.v or [0 * x for x in w]
        self.m = [0.9 * old + 0.1 * new for old, new in zip(m, g, strict=True)]
        self.v = [0.999 * old + 0.001 * new**2 for old, new in zip(v, g, strict=True)]
        ways = [
            (m / (1 - 0.9**self.t)) / (np.sqrt(v / (1 - 0.999**self.t)) + 1e-8)
            for m, v in zip(self.m, self.v, strict=True)
        ]
        return [value - self.lr * way for value, way in zip(w, ways, strict=True)]


def by_hand(network: nn.Module, sites: list[Site], optimizer, loss, values: float, turn: bool):
    """The weights after each round, and the amplitude that all have after the first."""
    weights = [param.detach().numpy().copy() for param in network.parameters()]
    optimizers, common, found = [optimizer() for _ in sites], None, []
    smallest = min(len(place.train) for place in sites)
    for number in range(1, ROUNDS + 1):
        ends, amplitudes = [], []
        for place, own in zip(sites, optimizers, strict=True):
            w, learnt = [value.copy() for value in weights], common
            random = rng(0, "batches", number, place.name, 0)
            order = random.permutation(smallest)
            for start in range(0, smallest, 4):
                index = order[start : start + 4]
                x = place.train.images[index].astype(np.float32) / np.float32(255)
                x, y = x.astype(np.float64) * values, place.train.targets[index].astype(np.int64)
                if turn:
                    x, y = turned(x, y, random)
                if learnt is None:  # of the first batch, for ever
                    learnt = np.abs(np.fft.fft2(x)).mean(axis=0)
                x, target = normalized(x, learnt), torch.from_numpy(y)
                g = gradients(network, w, x, target, loss)
                length = np.sqrt(sum((gradient**2).sum() for gradient in g))
                up = [value + ALPHA * gradient / (length + 1e-12) for value, gradient in zip(w, g, strict=True)]
                w = own.step(w, gradients(network, up, x, target, loss))
            ends.append(w)
            amplitudes.append(learnt)
        weights = [sum(values) / len(sites) for values in zip(*ends, strict=True)]
        common = sum(amplitudes) / len(sites) if common is None else common
        found.append([value.copy() for value in weights])
    return found, common


def turned(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Each image flipped left to right or not, top to bottom or not, and turned by 0 to 4 quarters."""
    across, down = random.integers(2, size=(2, len(x)))
    quarters = random.integers(5, size=len(x))
    for k in range(len(x)):
        for planes in (x[k], y[k]):
            moved = planes[..., ::-1] if across[k] else planes
            moved = moved[..., ::-1, :] if down[k] else moved
            planes[...] = np.rot90(moved, quarters[k], (-2, -1)).copy()
    return x, y


def distance(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return float(np.sqrt(sum(((x - y) ** 2).sum() for x, y in zip(a, b, strict=True))))


def doubled(turn: Callable[..., Batch] | None, batch: Batch, random: np.random.Generator) -> Batch:
    """The batch in float64, so that rounding hides nothing."""
    wide = replace(batch, images=batch.images.double())
    return turn(wide, random) if turn else wide


CASES = {
    "prostate": (lambda: UNet(features=4), "segmentation", "dice-ce", Adam, torch.optim.Adam, 1e-4, 255.0),
    "histology": (
        lambda: DenseNet(growth=4, blocks=(2, 2, 2, 2), initial=8),
        "classification",
        "cross-entropy",
        Sgd,
        partial(torch.optim.SGD, momentum=0.9),
        1e-3,
        1.0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rounds_as_released_are_the_procedure_written_out(name: str) -> None:
    """To 1e-10 of the update; single images left over are a batch of their own, as in the released loader."""
    build, task, loss_name, own_optimizer, optimizer, lr, values = CASES[name]
    torch.manual_seed(0)
    network, method = build().double(), make_method("harmofl-released", {"rho": ALPHA})
    sites = [site(where, task) for where in COUNTS]
    loss, prostate = LOSSES[loss_name], name == "prostate"
    expected, amplitude = by_hand(deepcopy(network), sites, lambda: own_optimizer(lr), loss, values, prostate)
    start = [param.detach().numpy().copy() for param in network.parameters()]
    if prostate:
        network.register_forward_pre_hook(_as_bytes)
    cut = [replace(place, train=place.train.first(min(COUNTS.values()))) for place in sites]
    training = Training(
        model=method.model(network),
        loss=loss,
        optimizer=partial(optimizer, lr=lr, weight_decay=DECAY),
        batch_size=4,
        last_alone=True,
        augment=partial(doubled, augment_as_released if prostate else None),
    )
    server, states = method.start(training.model, len(sites)), {}
    for number in range(ROUNDS):
        server, states, updates = run_round(method, server, cut, states, training)
        assert [update.num_steps for update in updates] == [3, 3]
        got = [server.weights[f"network.{key}"].numpy() for key, _ in network.named_parameters()]
        before = start if number == 0 else expected[number - 1]
        assert distance(got, expected[number]) <= 1e-10 * distance(before, expected[number])
    half = server.weights["amplitude_norm.amplitude"].numpy() * values
    np.testing.assert_allclose(half, amplitude[..., : SIDE // 2 + 1], rtol=1e-10)
