"""FedAvg: train at every site, average the weights.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
Algorithm 1. https://arxiv.org/abs/1602.05629
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from harmofl.arrays import Arrays, mean
from harmofl.batch import Batch
from harmofl.errors import ConfigError
from harmofl.exchange import Broadcast, ClientState, ClientUpdate, ServerState
from harmofl.local import LocalRun


@dataclass(frozen=True, kw_only=True)
class FedAvg:
    """Each site steps on its own loss, w_i <- w_i - eta grad f_i(w_i); the server sets w = sum_i p_i w_i.

    Args:
        weighting: p_i; "uniform" gives every site 1/N (as the HarmoFL code does), "samples" n_i / n (as FedAvg's
            paper does).
    """

    weighting: Literal["uniform", "samples"] = "uniform"

    def __post_init__(self) -> None:
        if self.weighting not in ("uniform", "samples"):
            raise ConfigError(f"weighting must be uniform or samples, got {self.weighting!r}")

    def model(self, network: nn.Module) -> nn.Module:
        """The network, with nothing before it."""
        return nn.Sequential(OrderedDict(network=network))

    def start(self, weights: Arrays) -> ServerState:
        """The initial weights, no round done."""
        return ServerState(0, weights)

    def broadcast(self, server: ServerState) -> Broadcast:
        """The global weights."""
        return Broadcast(server.round + 1, server.weights, server.extras)

    def aggregate(self, server: ServerState, updates: Sequence[ClientUpdate]) -> ServerState:
        """W = sum_i p_i w_i over the sites of this round; what no site sends stays as it is."""
        shares = [float(u.num_samples) if self.weighting == "samples" else 1.0 for u in updates]
        averaged = mean([u.weights for u in updates], shares)
        return replace(server, round=server.round + 1, weights={**server.weights, **averaged})

    def is_shared(self, model: nn.Module, name: str) -> bool:
        """Everything."""
        return True

    def prepare(self, run: LocalRun) -> None:
        """Nothing to prepare."""

    def objective(self, run: LocalRun, batch: Batch) -> Tensor:
        """f_i on one batch: what a site minimizes."""
        return run.loss(batch)

    def gradient(self, run: LocalRun, batch: Batch) -> Tensor:
        """Leave the gradient to step with in the parameters; return the loss at the current weights."""
        run.optimizer.zero_grad()
        loss = self.objective(run, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def local_step(self, run: LocalRun, batch: Batch) -> Tensor:
        """One step of the site's optimizer."""
        loss = self.gradient(run, batch)
        run.optimizer.step()
        return loss

    def report(self, run: LocalRun) -> tuple[Mapping[str, Arrays], ClientState]:
        """Nothing beyond the weights."""
        return {}, {}
