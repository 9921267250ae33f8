"""Run an experiment into a run folder, or go on with one that was interrupted."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from harmofl.arrays import Arrays, state_of
from harmofl.config import Experiment, TrainingTable, load_experiment, resolved, to_toml
from harmofl.data.manifest import SPLITS
from harmofl.data.site import Federation, Site, open_federation
from harmofl.data.transforms import augment
from harmofl.errors import ConfigError
from harmofl.evaluation import predict, score
from harmofl.journal import Checkpoint, Journal, RoundRecord, Scores
from harmofl.local import Training
from harmofl.losses import LOSSES
from harmofl.method import Method
from harmofl.methods import make_method
from harmofl.metrics import MAIN_METRIC, Summary, summarize
from harmofl.models import build_network
from harmofl.runtimes.simulation import run_round
from harmofl.samples import save_samples


class Watch:
    """What somebody who watches a run is told; override what is of interest."""

    def opening(self, site: str, done: int, total: int) -> None:
        """`done` of `total` files of a site have been read."""

    def started(self, experiment: Experiment, federation: Federation, first_round: int) -> None:
        """Training begins with round `first_round`."""

    def site_done(self, site: str) -> None:
        """A site has finished its share of the round."""

    def round_done(self, record: RoundRecord) -> None:
        """A round has been trained, aggregated, validated and recorded."""

    def finished(self, result: Mapping[str, Any]) -> None:
        """The chosen model has been tested."""


def run(experiment: Experiment, folder: Path, watch: Watch | None = None) -> dict[str, Any]:
    """Train, validate every round, test the chosen model once, and record all of it.

    Args:
        experiment: what to run.
        folder: the run folder to make; new or empty.
        watch: who is told of the progress.

    Returns:
        The result, as in `result.json`.

    Raises:
        HarmoFLError: one line for a person, see `harmofl.errors`; a run that has begun can be resumed.
    """
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        Journal.create(folder, "", {})  # refuses before the data is read
    watch = watch or Watch()
    trial = _Trial.set_up(experiment, watch)
    config = to_toml(trial.experiment, _versions())
    journal = Journal.create(folder, config, trial.card())
    server = trial.method.start(state_of(trial.training.model))
    return _train(trial, journal, Checkpoint(server, {}, 0, float("-inf")), watch)


def resume(folder: Path, watch: Watch | None = None) -> dict[str, Any]:
    """Go on with a run after its last checkpoint; ends with the same weights to the bit as an undisturbed run.

    Raises:
        RunError: if there is no run in the folder, or its checkpoint is damaged.
    """
    watch = watch or Watch()
    journal = Journal.open(folder)
    if journal.result_path.exists():
        return journal.result()
    trial = _Trial.set_up(load_experiment(journal.config_path, {}), watch)
    checkpoint = journal.load()
    if checkpoint is None:
        server = trial.method.start(state_of(trial.training.model))
        checkpoint = Checkpoint(server, {}, 0, float("-inf"))
    journal.rewind(checkpoint.server.round)
    return _train(trial, journal, checkpoint, watch)


@dataclass(frozen=True)
class _Trial:
    """An experiment with its images, method and model at hand."""

    experiment: Experiment
    federation: Federation
    method: Method
    training: Training

    @classmethod
    def set_up(cls, experiment: Experiment, watch: Watch) -> "_Trial":
        data = experiment.data
        federation = open_federation(
            data.folder,
            size=data.size,
            channels=data.channels,
            seed=experiment.run.seed,
            cache=data.cache,
            progress=watch.opening,
        )
        experiment = resolved(experiment, federation.info.task)
        torch.set_num_threads(experiment.run.threads)
        options = dict(experiment.method)
        method = make_method(options.pop("name"), options)
        return cls(experiment, federation, method, _training(experiment, federation, method))

    def card(self) -> dict[str, Any]:
        """What somebody needs to use the model."""
        info, site = self.federation.info, self.federation.sites[0]
        return {
            "task": info.task,
            "classes": list(info.classes),
            "channels": site.train.images.shape[1],
            "size": list(site.train.images.shape[2:]),
            "network": self.experiment.network.model_dump(),
            "method": dict(self.experiment.method),
            "sites": [site.name for site in self.federation.sites],
        }

    def scores(self, weights: Arrays, own: Mapping[str, Arrays], split: str) -> dict[str, dict[str, float]]:
        """Every site's scores under the global weights and, over them, those it keeps for itself."""
        return {
            site.name: score(self.predict(site, split, {**weights, **own.get(site.name, {})}), site, split)
            for site in self.federation.sites
        }

    def predict(self, site: Site, split: str, weights: Arrays) -> np.ndarray:
        """Outputs for one split of a site."""
        self.training.model.load_state_dict(weights)
        batch_size = self.experiment.evaluation.batch_size
        return predict(self.training.model, site, split, batch_size=batch_size, device=self.training.device)

    def main(self, scores: Scores) -> Summary:
        """Mean, worst and spread of the main metric over the sites."""
        metric = MAIN_METRIC[self.federation.info.task]
        return summarize({site: values[metric] for site, values in scores.items()})


def _train(trial: _Trial, journal: Journal, checkpoint: Checkpoint, watch: Watch) -> dict[str, Any]:
    total, every = trial.experiment.training.rounds, trial.experiment.run.checkpoint_every
    watch.started(trial.experiment, trial.federation, checkpoint.server.round + 1)
    while checkpoint.server.round < total:
        checkpoint, record = _round(trial, journal, checkpoint, watch)
        journal.append(record)
        if record.round % every == 0 or record.round == total:
            journal.save(checkpoint)
        watch.round_done(record)
    result = _finish(trial, journal, checkpoint)
    watch.finished(result)
    return result


def _round(
    trial: _Trial, journal: Journal, before: Checkpoint, watch: Watch
) -> tuple[Checkpoint, RoundRecord]:
    """Train, aggregate, validate; keep the model if it is the best so far."""
    begin = time.perf_counter()
    server, states, updates = run_round(
        trial.method, before.server, trial.federation.sites, before.states, trial.training, watch.site_done
    )
    own = {site: state["weights"] for site, state in states.items() if state.get("weights")}
    val = trial.scores(server.weights, own, "val")
    mean = trial.main(val).mean
    best = mean > before.best_score
    if best:
        journal.save_model(server.weights, own)
    seconds = time.perf_counter() - begin
    record = RoundRecord(
        round=server.round,
        seconds=round(seconds, 4),
        train_loss={update.site: update.loss for update in updates},
        bytes_up=sum(update.num_bytes() for update in updates),
        bytes_down=len(updates) * trial.method.broadcast(before.server).num_bytes(),
        val=val,
        best=best,
        test=trial.scores(server.weights, own, "test")
        if trial.experiment.evaluation.test_every_round
        else None,
    )
    chosen = (server.round, mean) if best else (before.best_round, before.best_score)
    return Checkpoint(server, states, *chosen), record


def _finish(trial: _Trial, journal: Journal, checkpoint: Checkpoint) -> dict[str, Any]:
    """Test the chosen model, once."""
    weights, own = journal.load_model()
    predictions = {
        site.name: trial.predict(site, "test", {**weights, **own.get(site.name, {})})
        for site in trial.federation.sites
    }
    test = {site.name: score(predictions[site.name], site, "test") for site in trial.federation.sites}
    normalize = getattr(trial.training.model, "amplitude_norm", None)
    save_samples(journal.folder / "samples.npz", trial.federation.sites, predictions, normalize)
    records = journal.records()
    chosen = records[checkpoint.best_round - 1]
    result = {
        "name": trial.experiment.run.name,
        "method": trial.experiment.method["name"],
        "task": trial.federation.info.task,
        "classes": list(trial.federation.info.classes),
        "main_metric": MAIN_METRIC[trial.federation.info.task],
        "chosen_round": checkpoint.best_round,
        "rounds": len(records),
        "num_images": {
            site.name: {split: len(site.split(split)) for split in SPLITS} for site in trial.federation.sites
        },
        "val": chosen["val"],
        "test": test,
        "summary": asdict(trial.main(test)),
        "seconds_per_round": round(float(np.median([record["seconds"] for record in records])), 4),
        "num_params": sum(p.numel() for p in trial.training.model.parameters()),
    }
    journal.finish(result)
    return result


def _training(experiment: Experiment, federation: Federation, method: Method) -> Training:
    network, table = experiment.network, experiment.training
    built = build_network(
        network.name or "",
        channels=federation.sites[0].train.images.shape[1],
        classes=len(federation.info.classes),
        norm=network.norm,
        seed=experiment.run.seed,
        options=network.options,
    )
    return Training(
        model=method.model(built).to(memory_format=torch.channels_last),  # faster convolutions on CPU and GPU
        loss=LOSSES[table.loss or ""],
        optimizer=_optimizer(table),
        epochs=table.epochs,
        batch_size=table.batch_size or 0,
        augment=augment if table.augment == "flips" else None,
        seed=experiment.run.seed,
        device=_device(experiment.run.device),
    )


def _optimizer(table: TrainingTable) -> Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]:
    options = {"lr": table.lr, "weight_decay": table.weight_decay}
    if table.optimizer == "sgd":
        return partial(torch.optim.SGD, momentum=table.momentum, **options)
    return partial(torch.optim.Adam, **options)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"run.device is {name}, but torch sees no CUDA device here; use cpu or auto")
    return torch.device(name)


def _versions() -> dict[str, str]:
    packages = ("harmofl", "torch", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
