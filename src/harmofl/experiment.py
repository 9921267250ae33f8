"""Run an experiment into a run folder, or go on with one that was interrupted."""

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from harmofl.amplitude import AmplitudeNorm
from harmofl.arrays import Arrays
from harmofl.checkpoint import Checkpoint
from harmofl.config import Experiment, load_experiment, to_toml
from harmofl.data.manifest import SPLITS
from harmofl.data.site import Federation
from harmofl.errors import RunError
from harmofl.evaluation import score
from harmofl.journal import Journal, RoundRecord
from harmofl.metrics import MAIN_METRIC
from harmofl.runtimes.simulation import run_round
from harmofl.samples import save_samples
from harmofl.trial import Trial


class Watch:
    """What somebody who watches a run is told; override what is of interest."""

    def opening(self, site: str, done: int, total: int) -> None:
        """`done` of `total` images of a site have been read."""

    def started(self, experiment: Experiment, federation: Federation, first_round: int) -> None:
        """Training begins with round `first_round`."""

    def site_done(self, site: str) -> None:
        """A site has finished its share of the round."""

    def round_done(self, record: RoundRecord) -> None:
        """A round has been trained, aggregated, validated and recorded."""


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
    Journal.refuse_used(folder)
    watch = watch or Watch()
    trial = Trial.prepare(experiment, watch.opening)
    journal = Journal.create(folder, to_toml(trial.experiment, _versions()), trial.card())
    with journal.locked():
        return _train(trial, journal, Checkpoint(trial.start(), {}, 0, float("-inf")), watch)


def resume(folder: Path, watch: Watch | None = None) -> dict[str, Any]:
    """Go on with a run after its last checkpoint; ends with the same weights to the bit as an undisturbed run.

    A finished run is left as it is and its result returned.

    Raises:
        RunError: if there is no run in the folder, or its checkpoint is damaged.
    """
    journal = Journal.open(folder)
    with journal.locked():
        return journal.result() if journal.result_path.exists() else _go_on(journal, watch or Watch())


def _go_on(journal: Journal, watch: Watch) -> dict[str, Any]:
    trial = Trial.prepare(load_experiment(journal.config_path, {}), watch.opening)
    if journal.card() != trial.card():
        raise RunError(
            f"{journal.folder}: configuration and images must be those that the run began with, but are not; restore "
            "them or start a new run"
        )
    start = trial.start()
    checkpoint = journal.load() or Checkpoint(start, {}, 0, float("-inf"))
    if not _fits(checkpoint.server.weights, start.weights):
        raise RunError(f"{journal.folder}: the checkpoint is of another network; start a new run")
    journal.rewind(checkpoint.server.round)
    journal.settle(checkpoint.best_round)
    return _train(trial, journal, checkpoint, watch)


def _train(trial: Trial, journal: Journal, checkpoint: Checkpoint, watch: Watch) -> dict[str, Any]:
    total, every = trial.experiment.training.rounds, trial.experiment.run.checkpoint_every
    watch.started(trial.experiment, trial.federation, checkpoint.server.round + 1)
    while checkpoint.server.round < total:
        checkpoint, record = _round(trial, journal, checkpoint, watch)
        journal.append(record)
        if record.round % every == 0 or record.round == total:
            journal.save(checkpoint)
        watch.round_done(record)
    return _finish(trial, journal, checkpoint)


def _round(trial: Trial, journal: Journal, before: Checkpoint, watch: Watch) -> tuple[Checkpoint, RoundRecord]:
    """Train, aggregate, validate; keep the model if it is the best so far."""
    begin = time.perf_counter()
    server, states, updates = run_round(
        trial.method, before.server, trial.federation.sites, before.states, trial.training, watch.site_done
    )
    own = {site: state["weights"] for site, state in states.items() if state.get("weights")}
    val = trial.scores(server.weights, own, "val")
    mean = trial.summary(val).mean
    best = mean > before.best_score
    if best:
        journal.save_model(server.round, server.weights, own)
    seconds = time.perf_counter() - begin
    every = trial.experiment.evaluation.test_every_round
    record = RoundRecord(
        round=server.round,
        seconds=round(seconds, 4),
        train_loss={update.site: update.loss for update in updates},
        bytes_up=sum(update.num_bytes() for update in updates),
        bytes_down=len(updates) * trial.method.broadcast(before.server).num_bytes(),
        val=val,
        best=best,
        test=trial.scores(server.weights, own, "test") if every else None,
    )
    chosen = (server.round, mean) if best else (before.best_round, before.best_score)
    return Checkpoint(server, states, *chosen), record


def _finish(trial: Trial, journal: Journal, checkpoint: Checkpoint) -> dict[str, Any]:
    """Test the chosen model, once, and write the result."""
    weights, own = journal.load_model()
    sites = trial.federation.sites
    outputs = {s.name: trial.predict(s, "test", {**weights, **own.get(s.name, {})}) for s in sites}
    test = {site.name: score(outputs[site.name], site, "test") for site in sites}
    normalize = getattr(trial.training.model, "amplitude_norm", None)
    save_samples(
        journal.folder / "samples.npz",
        sites,
        outputs,
        normalize if isinstance(normalize, AmplitudeNorm) else None,
    )
    records = journal.records()
    if len(records) != checkpoint.server.round:
        raise RunError(f"{journal.folder}/rounds.jsonl: must have {checkpoint.server.round} rounds, has {len(records)}")
    result = {
        "name": trial.experiment.run.name,
        "method": trial.experiment.method["name"],
        "task": trial.federation.info.task,
        "classes": list(trial.federation.info.classes),
        "main_metric": MAIN_METRIC[trial.federation.info.task],
        "chosen_round": checkpoint.best_round,
        "rounds": len(records),
        "num_images": {site.name: {split: len(site.split(split)) for split in SPLITS} for site in sites},
        "val": records[checkpoint.best_round - 1]["val"],
        "test": test,
        "summary": asdict(trial.summary(test)),
        "seconds_per_round": round(float(np.median([record["seconds"] for record in records])), 4),
        "num_params": sum(p.numel() for p in trial.training.model.parameters()),
    }
    journal.finish(result)
    return journal.result()


def _fits(weights: Arrays, start: Arrays) -> bool:
    """Whether the names are the same, and the shapes too but for an amplitude that was yet to be learnt."""
    return weights.keys() == start.keys() and all(
        not start[name].numel() or weights[name].shape == start[name].shape for name in weights
    )


def _versions() -> Mapping[str, str]:
    packages = ("harmofl", "torch", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
