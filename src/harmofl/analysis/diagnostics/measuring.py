"""Diagnostics of each round, computed from the states and updates of a run without changing the training."""

import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from torch import Tensor

from harmofl.analysis.diagnostics.curvature import STEPS, flat_vector
from harmofl.analysis.diagnostics.loss_probe import Probe, batch_size, fixed_batch, hessian_every
from harmofl.analysis.diagnostics.quantities import Dissimilarity, bound, cosines, dissimilarity
from harmofl.analysis.diagnostics.records import NAN, DiagnosticsRecord, append, mean_over_sites
from harmofl.analysis.diagnostics.shared_params import shared_params, weights_of
from harmofl.experiment.backend import TrainedRound
from harmofl.experiment.callbacks import Callback
from harmofl.experiment.setup import Setup
from harmofl.experiment.tables import TrainingTable
from harmofl.federated.messages import ClientUpdate, ServerState
from harmofl.federated.tensors import Arrays, norm


class Diagnostics(Callback):
    """Measures after every round and appends one record to a file.

    Args:
        setup: the setup of the run; its model is copied.
        path: path of the file.
        images: size of each site's fixed batch; `harmofl.analysis.diagnostics.loss_probe.batch_size` if not given.
    """

    def __init__(self, setup: Setup, path: Path, images: int | None = None) -> None:
        self._setup, self._path = setup, path
        sites, training = setup.federation.sites, setup.training
        self._images, self._every = images or batch_size(sites, training.epochs), hessian_every(sites, training.epochs)
        batches = {site.name: fixed_batch(site, self._images, training.seed) for site in sites}
        self._probe = Probe(training.model, training.loss, batches, training.device)
        self._rows = [len(own[0]) for own in batches.values()]
        self._shared = shared_params(setup.method, training.model)
        self._names = self._shared or [name for name, p in training.model.named_parameters() if p.requires_grad]
        self._before: tuple[Tensor, Dissimilarity] | None = None

    def on_fit_begin(self, server: ServerState, personal: Mapping[str, Arrays]) -> None:
        """Measure at the weights before the first round of a run or of a resumed run.

        Raises:
            ConfigError: if the network cannot be differentiated twice.
            StorageError: if the record cannot be written.
        """
        start = time.perf_counter()
        self._probe.check()
        found = self._at(server, personal)
        if server.round == 0 and not (self._path.exists() and self._path.stat().st_size):
            append(self._path, DiagnosticsRecord(round=0, **found, seconds=_since(start)))

    def measure(self, server: ServerState, own: Mapping[str, Arrays], steps: int = STEPS) -> DiagnosticsRecord:
        """Return constants, sharpness and eigenvalue at the server's weights, without writing a record.

        Args:
            server: the server state that holds the weights.
            own: by site, its personal weights.
            steps: steps of the Lanczos iteration; 0 leaves the eigenvalue out.
        """
        found = self._at(server, own)
        if steps:
            found |= self._eigenvalue(server, own, steps)
        return DiagnosticsRecord(round=server.round, **found)

    def on_aggregate(
        self, before: ServerState, after: TrainedRound, personal: Mapping[str, Arrays], seconds: float
    ) -> None:
        """Measure after a round and append the record.

        Raises:
            StorageError: if the record cannot be written.
        """
        assert self._before is not None
        start, server, (earlier, constants) = time.perf_counter(), after.server, self._before
        found = {**self._of_round(before, after.updates, constants), **self._at(server, personal)}
        found["secant"] = self._secant(before, server, earlier)
        if server.round % self._every == 0 or server.round == self._setup.experiment.training.rounds:
            found |= self._eigenvalue(server, personal)
        found |= {"round": server.round, "of_round": round(seconds, 4), "seconds": _since(start)}
        append(self._path, DiagnosticsRecord(**found))

    def _weights(self, server: ServerState, own: Mapping[str, Arrays]) -> dict[str, Arrays]:
        return weights_of(self._shared, server.weights, own, [site.name for site in self._setup.federation.sites])

    def _at(self, server: ServerState, own: Mapping[str, Arrays]) -> dict[str, Any]:
        """Measure at the server's weights and keep the result as the constants of the next round."""
        measured = self._probe.measure(self._weights(server, own).__getitem__, self._names)
        found = dissimilarity(list(measured.gradients.values()))
        self._before = measured.mean_gradient(), found
        said: dict[str, Any] = {"images": self._images, "loss": measured.losses, "rise": measured.rises}
        said["gradients"] = dict(zip(measured.losses, found.of_sites, strict=True))
        if not self._shared:
            return said
        keys = ("gradient", "square", "spread", "spread_unbiased", "relative", "epsilon")
        return {
            **said,
            **{key: getattr(found, key) for key in keys},
            "variance": self._variance(found),
            "norm": norm([server.weights[name] for name in self._names]),
        }

    def _variance(self, found: Dissimilarity) -> float:
        """Return the variance for a training batch, scaled from half a fixed batch: it is inverse to the batch size."""
        rows = [min(self._setup.training.batch_size, len(site.train)) for site in self._setup.federation.sites]
        return mean_over_sites(
            v * own / of_step for v, own, of_step in zip(found.variances, self._rows, rows, strict=True)
        )

    def _of_round(
        self, before: ServerState, updates: Sequence[ClientUpdate], constants: Dissimilarity
    ) -> dict[str, Any]:
        """Return Gamma, its bound from the constants at the start of the round, and the cosines of the updates."""
        if not self._shared:
            return {}
        names = [n for n in self._names if all(n in update.weights for update in updates)]
        start = flat_vector([before.weights[name] for name in names])
        moves = [flat_vector([update.weights[name] for name in names]) - start for update in updates]
        steps = sum(update.num_steps for update in updates) / len(updates)
        rate = NAN if self._setup.experiment.arrangement == "pooled" else plain_rate(self._setup.experiment.training)
        limit = bound(
            steps=steps,
            lr=rate,
            square=constants.square,
            epsilon=constants.epsilon,
            variance=self._variance(constants),
            sites=len(self._setup.federation.sites),
        )
        return {
            "drift": sum(update.drift for update in updates) / len(updates),
            "drift_end": sum(norm([move]) ** 2 for move in moves) / len(moves),
            "bound": limit.total,
            "terms": vars(limit),
            "step": steps * rate,
            "cosines": _pairs([update.site for update in updates], moves),
        }

    def _secant(self, before: ServerState, server: ServerState, earlier: Tensor) -> float:
        """Return the secant of grad F over a round; NaN in round 1 if the method's amplitude layer changes F."""
        if self._before is None or not self._shared or (server.round == 1 and self._setup.method.normalize.learns):
            return NAN
        way = norm([server.weights[name].double() - before.weights[name].double() for name in self._names])
        return norm([self._before[0] - earlier]) / way if way else NAN

    def _eigenvalue(self, server: ServerState, own: Mapping[str, Arrays], steps: int = STEPS) -> dict[str, float]:
        assert self._before is not None
        weights = self._weights(server, own).__getitem__
        value, residual = self._probe.eigenvalue(weights, self._names, self._before[0], steps)
        return {"eigenvalue": value, "residual": residual}


def plain_rate(training: TrainingTable) -> float:
    """Return eta_l of Theorem 3.1: lr / (1 - momentum) for SGD, the step of a constant gradient; NaN for Adam."""
    if training.optimizer != "sgd":
        return NAN
    return (training.lr or NAN) / (1 - training.momentum)


def _pairs(sites: Sequence[str], moves: Sequence[Tensor]) -> dict[str, dict[str, float]]:
    values = cosines(moves)
    table: dict[str, dict[str, float]] = {site: {} for site in sites}
    for i, j in combinations(range(len(sites)), 2):
        table[sites[i]][sites[j]] = table[sites[j]][sites[i]] = float(values[i, j])
    return table


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 4)
