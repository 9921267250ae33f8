"""One weight and the loss (w - t)^2 / 2, so that every gradient is w - t and every step can be worked out by hand."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from toys import Scalar, toy_training, train

from harmofl.backends.sequential import run_round
from harmofl.data.site import Site, Split
from harmofl.federated.client import Training
from harmofl.federated.messages import ClientState, ServerState
from harmofl.federated.method import Method

LR = 0.1


def site(name: str, t: int, steps: int = 2) -> Site:
    """A site whose loss is (w - t)^2 / 2 in each of its steps, of two images each."""
    count = 2 * steps
    split = Split(np.zeros((count, 1, 2, 2), np.float32), np.full(count, t), tuple(map(str, range(count))))
    return Site(name, "classification", ("no", "yes"), split, split, split)


def quadratic(method: Method, network: nn.Module | None = None, momentum: float = 0.0, lr: float = LR) -> Training:
    training = toy_training(
        method,
        network or Scalar(),
        loss=lambda w, t: ((w - t.float().mean()) ** 2).sum() / 2,
        optimizer=lambda params: torch.optim.SGD(params, lr=lr, momentum=momentum),
    )
    return replace(training, batch_size=2)


def after(method: Method, rounds: int, sites: list[Site], **options: float) -> float:
    """The global weight after these rounds."""
    server, *_ = train(method, quadratic(method, **options), rounds, sites)
    return float(server.weights["network.w"])


def states_after(method: Method, rounds: int, sites: list[Site]) -> tuple[ServerState, dict[str, ClientState]]:
    training = quadratic(method)
    server, states = method.start(training.model), {}
    for _ in range(rounds):
        server, states, _ = run_round(method, server, sites, states, training)
    return server, states
