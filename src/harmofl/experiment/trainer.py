"""The training loop: runs an experiment into a run directory, or resumes an interrupted run."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from harmofl.analysis.diagnostics.measuring import Diagnostics
from harmofl.data.site import Federation
from harmofl.errors import ConfigError, RunError
from harmofl.evaluation.metrics import improves, summarize
from harmofl.experiment.backend import Backend, LocalBackend
from harmofl.experiment.backend_choice import runtime, shared_cache
from harmofl.experiment.callbacks import Callback, Callbacks
from harmofl.experiment.checkpoint import Checkpoint
from harmofl.experiment.config import check_images_remain, load_experiment, to_toml
from harmofl.experiment.data_table import DataTable
from harmofl.experiment.model_card import main_metric
from harmofl.experiment.round_record import RoundRecord
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.setup import Setup
from harmofl.experiment.tables import Experiment
from harmofl.federated.tensors import Arrays
from harmofl.utils.package_versions import package_versions

MakeBackend = Callable[[Setup, RunDir], Backend]
"""Function or class that makes the backend of a run."""


def run(
    experiment: Experiment,
    folder: Path | str,
    callbacks: Sequence[Callback] = (),
    *,
    sites: Federation | None = None,
    backend: MakeBackend | None = None,
) -> dict[str, Any]:
    """Train, validate, test the chosen model once, and record rounds and result.

    Args:
        experiment: the experiment to run.
        folder: the run folder to create; new or empty.
        callbacks: called with the progress.
        sites: the images, from `harmofl.federation_of`; without it those in `data.folder`.
        backend: makes the backend that trains and scores; without it this process, or `run.workers` processes.

    Returns:
        The result, as in `result.json`.

    Raises:
        HarmoFLError: one line for a person, see `harmofl.errors`; a run that has begun can be resumed.
    """
    folder = Path(folder)
    RunDir.refuse_used(folder)
    with _prepared(experiment, callbacks, sites) as (setup, cache):
        run_dir = RunDir.create(folder, to_toml(setup.experiment, package_versions()), setup.card())
        with run_dir.locked():
            return _train(setup, cache, run_dir, Checkpoint(setup.start()), callbacks, backend)


def resume(
    folder: Path | str,
    callbacks: Sequence[Callback] = (),
    *,
    sites: Federation | None = None,
    backend: MakeBackend | None = None,
) -> dict[str, Any]:
    """Resume a run after its last checkpoint; the weights are equal to the bit to those of an uninterrupted run.

    A finished run stays unchanged, and its result is returned. Arguments and result are those of `run`.

    Raises:
        RunError: if there is no run in the folder, or its checkpoint is damaged.
    """
    run_dir = RunDir.open(Path(folder))
    with run_dir.locked():
        if run_dir.result_path.exists():
            return run_dir.result()
        experiment = load_experiment(run_dir.config_path, {})
        if sites is None:
            check_images_remain(experiment.data, run_dir.folder)
        with _prepared(experiment, callbacks, sites) as (setup, cache):
            return _train(setup, cache, run_dir, _last(setup, run_dir), callbacks, backend)


@contextmanager
def _prepared(
    experiment: Experiment, callbacks: Sequence[Callback], sites: Federation | None
) -> Iterator[tuple[Setup, Path | None]]:
    """Yield the setup, and the folder in which processes share images."""
    callback = Callbacks(callbacks)
    if sites is not None:
        _check_in_memory(experiment, sites)
    with shared_cache(experiment) as cache:
        yield Setup.prepare(experiment, callback.on_load, cache, callback.on_message, sites), cache


def _check_in_memory(experiment: Experiment, sites: object) -> None:
    """Raise ConfigError unless these are sites in memory, and for settings that they do not follow."""
    if not isinstance(sites, Federation):
        got = type(sites).__name__
        raise ConfigError(f"sites must be a federation, got {got}; make one with harmofl.federation_of")
    if experiment.run.workers != 1:
        raise ConfigError(f"run.workers must be 1 for sites in memory, got {experiment.run.workers}; set it to 1")
    data, default = experiment.data, DataTable()  # type: ignore[call-arg]
    for key in ("folder", "size", "channels", "slices", "levels", "split", "cache"):
        if (value := getattr(data, key)) != getattr(default, key):
            raise ConfigError(f"data.{key} has no effect on sites in memory, got {value}; leave it out")


def _last(setup: Setup, run_dir: RunDir) -> Checkpoint:
    """Return the checkpoint to resume from, and rewind the run directory to its round."""
    if not run_dir.is_of(setup.card()):
        raise RunError(
            f"{run_dir.folder}: configuration and images must be those that the run began with, but are not; restore "
            "them or start a new run"
        )
    start = setup.start()
    checkpoint = run_dir.load() or Checkpoint(start)
    checkpoint = replace(checkpoint, server=replace(checkpoint.server, sites=start.sites))  # older versions saved no N
    if not _fits(checkpoint.server.weights, start.weights):
        raise RunError(f"{run_dir.folder}: the checkpoint must fit the network, but has other weights; start a new run")
    run_dir.rewind(checkpoint.server.round)
    run_dir.settle(checkpoint.best_round)
    return checkpoint


def fit(
    experiment: Experiment,
    backend: Backend,
    run_dir: RunDir,
    checkpoint: Checkpoint,
    callback: Callback | None = None,
) -> dict[str, Any]:
    """Train the remaining rounds with any backend, and test the chosen model once.

    Args:
        experiment: the resolved experiment.
        backend: the backend that trains at the sites.
        run_dir: the run directory, locked against other writers.
        checkpoint: the checkpoint to start from.
        callback: called after every round and at the end.

    Returns:
        The result, as in `result.json`.
    """
    total, every, callback = experiment.training.rounds, experiment.run.checkpoint_every, callback or Callback()
    saved, saved_best = checkpoint.server.round, checkpoint.best_round
    metric = main_metric(experiment, run_dir.card()["task"])
    if checkpoint.server.round < total:
        callback.on_fit_begin(checkpoint.server, backend.personal())
    while checkpoint.server.round < total:
        backend.keep((saved, saved_best, checkpoint.best_round))
        checkpoint, record = _round(experiment, backend, run_dir, metric, checkpoint, callback)
        run_dir.append(record)
        if record.round % every == 0 or record.round == total:
            run_dir.save(checkpoint)
            saved, saved_best = record.round, checkpoint.best_round
        callback.on_round_end(record)
    backend.keep((saved, checkpoint.best_round))
    result = _finish(experiment, backend, run_dir, metric, checkpoint)
    callback.on_train_end(result)
    return result


def _round(
    experiment: Experiment,
    backend: Backend,
    run_dir: RunDir,
    metric: str,
    before: Checkpoint,
    callback: Callback,
) -> tuple[Checkpoint, RoundRecord]:
    """Train, aggregate and validate one round; save the model if it is the best so far."""
    begin, table = time.perf_counter(), experiment.evaluation
    sends = experiment.arrangement == "federated"
    done = backend.train(before.server, callback.on_client_end)
    server, updates = done.server, done.updates
    due = server.round % table.every == 0 or server.round == experiment.training.rounds
    val = (backend.evaluate(server.round, server.weights, "val") or None) if due and updates else None
    best = bool(val) and improves(val or {}, run_dir.scores_of(before.best_round), metric)
    if best:
        run_dir.save_model(server.round, server.weights, backend.personal())
    seconds = time.perf_counter() - begin
    callback.on_aggregate(before.server, done, backend.personal(), seconds)
    record = RoundRecord(
        round=server.round,
        seconds=round(seconds, 4),
        train_loss={update.site: update.loss for update in updates},
        bytes_up=sends * sum(update.num_bytes() for update in updates),
        bytes_down=sends * done.bytes_down,
        bytes_kept=done.kept,
        bytes_held=max((update.memory for update in updates), default=0),
        val=val,
        best=best,
        test=backend.evaluate(server.round, server.weights, "test") if table.test_every_round else None,
        left_out=done.left_out,
    )
    return Checkpoint(server, server.round if best else before.best_round), record


def _finish(
    experiment: Experiment, backend: Backend, run_dir: RunDir, metric: str, checkpoint: Checkpoint
) -> dict[str, Any]:
    """Test the chosen model once and write the result."""
    if not checkpoint.best_round:
        raise RunError(
            f"{run_dir.folder}: a round must be validated to choose a model, but none was; run it again with more sites"
        )
    scores, card, records = backend.test(run_dir, checkpoint.best_round), run_dir.card(), run_dir.records()
    if len(records) != checkpoint.server.round:
        raise RunError(f"{run_dir.folder}/rounds.jsonl: must have {checkpoint.server.round} rounds, has {len(records)}")
    trained = {site for record in records for site in record["train_loss"]}
    chose = {site for record in records for site in record.get("val") or ()}
    idle = scores.keys() - trained if experiment.arrangement == "federated" else set()
    unseen = {*card.get("unseen", ()), *(idle - chose)}  # older cards have none
    test = {site: values for site, values in scores.items() if site not in unseen}
    result = {
        "name": experiment.run.name,
        "method": experiment.method_name,
        "task": card["task"],
        "classes": card["classes"],
        "main_metric": metric,
        "chosen_round": checkpoint.best_round,
        "rounds": len(records),
        "num_images": backend.num_images(),
        "val": records[checkpoint.best_round - 1]["val"],
        "test": test,
        "unseen": {site: values for site, values in scores.items() if site in unseen},
        "summary": asdict(summarize({site: values[metric] for site, values in test.items()})),
        "seconds_per_round": round(float(np.median([record["seconds"] for record in records])), 4),
        "num_params": sum(p.numel() for p in backend.model.parameters()),
        "passes": backend.method.passes,
        "remarks": [
            *backend.remarks(),
            *(f"{site}: did not train, but its validation images helped to choose" for site in sorted(idle & chose)),
        ],
    }
    run_dir.finish(result)
    return run_dir.result()


def _train(
    setup: Setup,
    cache: Path | None,
    run_dir: RunDir,
    checkpoint: Checkpoint,
    callbacks: Sequence[Callback],
    backend: MakeBackend | None,
) -> dict[str, Any]:
    measuring = [Diagnostics(setup, run_dir.diagnostics_path)] if setup.experiment.run.diagnostics else []
    callback = Callbacks([*measuring, *callbacks])
    callback.on_train_begin(setup, checkpoint.server.round + 1)
    if backend is not None:
        return fit(setup.experiment, backend(setup, run_dir), run_dir, checkpoint, callback)
    with runtime(setup, cache) as runner:
        local = LocalBackend(setup, run_dir, runner, callback.reads_updates)
        return fit(setup.experiment, local, run_dir, checkpoint, callback)


def _fits(weights: Arrays, start: Arrays) -> bool:
    """Return True if names and shapes agree; an entry that is empty in `start`, an amplitude, may have any shape."""
    return weights.keys() == start.keys() and all(
        not start[name].numel() or weights[name].shape == start[name].shape for name in weights
    )
