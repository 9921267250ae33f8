"""Small things of the real shape: unequal sites, a last batch of one, odd sizes, nested BatchNorm."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from harmofl.backends.sequential import run_round
from harmofl.data.site import Site, Split
from harmofl.federated.client import Training, run_client
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate, ServerState
from harmofl.federated.method import Method
from harmofl.federated.tensors import state_of
from harmofl.methods import make_method

SIZES = {"a": 9, "b": 5, "c": 1}


def toy_split(count: int, level: float, seed: int) -> Split:
    random = np.random.default_rng(seed)
    targets = random.integers(0, 2, count)
    images = random.random((count, 3, 9, 7), dtype=np.float32) * 0.3 + level
    images[:, :, 2:5, 2:5] += 0.3 * targets[:, None, None, None]
    return Split(images, targets, tuple(map(str, range(count))))


def toy_site(name: str, count: int, level: float) -> Site:
    seed = sum(map(ord, name))
    parts = {part: toy_split(count, level, seed + i) for i, part in enumerate(("train", "val", "test"))}
    return Site(name=name, task="classification", classes=("no", "yes"), **parts)


def toy_sites() -> list[Site]:
    return [toy_site(name, count, level) for (name, count), level in zip(SIZES.items(), (0, 0.2, 0.4), strict=True)]


def toy_network(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout))
        return nn.Sequential(block, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))


def shallow(channels: int, classes: int) -> nn.Module:
    """Segments with few arrays: what crosses a wire in pieces takes time for each of them."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, classes, 3, padding=1)
    )


class Scalar(nn.Module):
    """Gives w, which starts at 1, for whatever image."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w


def sgd(params: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=1e-2)


def adam(params: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=0.01, weight_decay=1e-2)


def toy_training(
    method: Method,
    network: nn.Module | None = None,
    optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer] = sgd,
    **options: object,
) -> Training:
    training = Training(
        model=method.model(network or toy_network()),
        loss=nn.functional.cross_entropy,
        optimizer=optimizer,
        batch_size=4,
    )
    return replace(training, **options)


def train(
    method: Method, training: Training, rounds: int = 3, sites: list[Site] | None = None
) -> tuple[ServerState, dict[str, ClientState], list[ClientUpdate]]:
    start = state_of(training.model)
    server, states, updates = method.start(training.model), {}, []
    for _ in range(rounds):
        server, states, updates = run_round(method, server, sites or toy_sites(), states, training)
    training.model.load_state_dict(start)
    return server, states, updates


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


class ToySite:
    """A site in a building of its own: its model, and what it keeps between rounds."""

    def __init__(self, name: str, method: str) -> None:
        self.site = next(site for site in toy_sites() if site.name == name)
        self.method = make_method(method, {})
        self.training = toy_training(self.method, toy_network(dropout=0.2))
        self.state: ClientState = {}

    def train(self, broadcast: Broadcast) -> ClientUpdate:
        torch.set_num_threads(1)  # of the thread that answers
        update, self.state = run_client(self.method, self.site, broadcast, self.state, self.training)
        return update
