"""Run an experiment into a run folder, or go on with one that was interrupted."""

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from harmofl.analysis.diagnostics.measuring import Diagnostics
from harmofl.backends import RunRound
from harmofl.data.manifest import SPLITS
from harmofl.errors import RunError
from harmofl.evaluation.metrics import improves
from harmofl.evaluation.scoring import case_scores, score
from harmofl.experiment.artifacts import common_spectrum, sample, save_arrays, spectrum
from harmofl.experiment.backend_choice import runtime, shared_cache
from harmofl.experiment.checkpoint import Checkpoint
from harmofl.experiment.config import Experiment, load_experiment, to_toml
from harmofl.experiment.privacy_policy import tells_statistics
from harmofl.experiment.run_dir import RoundRecord, RunDir
from harmofl.experiment.setup import Setup
from harmofl.experiment.trained_model import TrainedModel
from harmofl.federated.model import normalizer_of
from harmofl.federated.tensors import Arrays, num_bytes
from harmofl.models.bn_calibration import of_site


class Watch:
    """What somebody who watches a run is told; override what is of interest."""

    def opening(self, site: str, done: int, total: int) -> None:
        """`done` of `total` images of a site have been read."""

    def told(self, line: str) -> None:
        """A line on the images: what was understood of their folder, or a warning."""

    def started(self, setup: Setup, first_round: int) -> None:
        """Training begins with round `first_round`."""

    def site_done(self, site: str) -> None:
        """A site has finished its share of the round."""

    def round_done(self, record: RoundRecord) -> None:
        """A round has been trained, aggregated, validated and recorded."""

    def finished(self, result: Mapping[str, Any]) -> None:
        """The chosen model has been tested; `result` as in result.json."""


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
    RunDir.refuse_used(folder)
    watch = watch or Watch()
    with shared_cache(experiment) as cache:
        setup = Setup.prepare(experiment, watch.opening, cache, watch.told)
        run_dir = RunDir.create(folder, to_toml(setup.experiment, _versions()), setup.card())
        with run_dir.locked(), runtime(setup, cache) as run_round:
            return _train(setup, run_round, run_dir, Checkpoint(setup.start()), watch)


def resume(folder: Path, watch: Watch | None = None) -> dict[str, Any]:
    """Go on with a run after its last checkpoint; ends with the same weights to the bit as an undisturbed run.

    A finished run is left as it is and its result returned.

    Raises:
        RunError: if there is no run in the folder, or its checkpoint is damaged.
    """
    run_dir = RunDir.open(folder)
    with run_dir.locked():
        return run_dir.result() if run_dir.result_path.exists() else _go_on(run_dir, watch or Watch())


def _go_on(run_dir: RunDir, watch: Watch) -> dict[str, Any]:
    experiment = load_experiment(run_dir.config_path, {})
    with shared_cache(experiment) as cache:
        setup = Setup.prepare(experiment, watch.opening, cache, watch.told)
        checkpoint = _last(setup, run_dir)
        with runtime(setup, cache) as run_round:
            return _train(setup, run_round, run_dir, checkpoint, watch)


def _last(setup: Setup, run_dir: RunDir) -> Checkpoint:
    """The checkpoint to go on from, and the run directory as it was then."""
    if not run_dir.is_of(setup.card()):
        raise RunError(
            f"{run_dir.folder}: configuration and images must be those that the run began with, but are not; restore "
            "them or start a new run"
        )
    start = setup.start()
    checkpoint = run_dir.load() or Checkpoint(start)
    checkpoint = replace(checkpoint, server=replace(checkpoint.server, sites=start.sites))  # older versions knew no N
    if not _fits(checkpoint.server.weights, start.weights):
        raise RunError(f"{run_dir.folder}: the checkpoint is of another network; start a new run")
    run_dir.rewind(checkpoint.server.round)
    run_dir.settle(checkpoint.best_round)
    return checkpoint


def _train(setup: Setup, run_round: RunRound, run_dir: RunDir, checkpoint: Checkpoint, watch: Watch) -> dict[str, Any]:
    total, every = setup.experiment.training.rounds, setup.experiment.run.checkpoint_every
    watch.started(setup, checkpoint.server.round + 1)
    own = {site: entries for site, state in run_dir.states.items() if (entries := setup.method.personal_weights(state))}
    diagnostics = Diagnostics(setup, run_dir.diagnostics_path) if setup.experiment.run.diagnostics else None
    if diagnostics and checkpoint.server.round < total:
        diagnostics.begin(checkpoint.server, own)
    while checkpoint.server.round < total:
        checkpoint, record = _round(setup, run_round, run_dir, checkpoint, own, watch, diagnostics)
        run_dir.append(record)
        if record.round % every == 0 or record.round == total:
            run_dir.save(checkpoint)
        watch.round_done(record)
    result = _finish(setup, run_dir, checkpoint)
    watch.finished(result)
    return result


def _round(
    setup: Setup,
    run_round: RunRound,
    run_dir: RunDir,
    before: Checkpoint,
    own: dict[str, Arrays],
    watch: Watch,
    diagnostics: Diagnostics | None,
) -> tuple[Checkpoint, RoundRecord]:
    """Train, aggregate, validate; keep the model if it is the best so far. `own` is brought up to date."""
    begin = time.perf_counter()
    sites = setup.drawn(before.server.round + 1)
    server, kept, updates = run_round(
        setup.method, before.server, sites, run_dir.states, setup.training, watch.site_done
    )
    run_dir.states.keep(server.round, kept)
    own.update({site: entries for site, state in kept.items() if (entries := setup.method.personal_weights(state))})
    val = setup.scores(server.weights, own, "val") if _validated(setup, server.round) else None
    best = bool(val) and improves(val or {}, run_dir.scores_of(before.best_round), setup.metric)
    if best:
        run_dir.save_model(server.round, server.weights, own)
    seconds = time.perf_counter() - begin
    if diagnostics:
        diagnostics.after(before.server, server, updates, own, seconds)
    every = setup.experiment.evaluation.test_every_round
    record = RoundRecord(
        round=server.round,
        seconds=round(seconds, 4),
        train_loss={update.site: update.loss for update in updates},
        bytes_up=setup.method.sends * sum(update.num_bytes() for update in updates),
        bytes_down=setup.method.sends * len(updates) * setup.method.broadcast(before.server).num_bytes(),
        bytes_kept=max(sum(map(num_bytes, state.values())) for state in kept.values()),
        bytes_held=max(update.memory for update in updates),
        val=val,
        best=best,
        test=setup.scores(server.weights, own, "test") if every else None,
    )
    return Checkpoint(server, server.round if best else before.best_round), record


def _validated(setup: Setup, round_number: int) -> bool:
    experiment = setup.experiment
    return round_number % experiment.evaluation.every == 0 or round_number == experiment.training.rounds


def _test(setup: Setup, run_dir: RunDir) -> dict[str, dict[str, float]]:
    """The chosen model's scores on the test images of every site; saves those of single cases.

    At unseen sites it is used as `harmofl evaluate` and `harmofl predict` use it there.
    """
    weights, own = run_dir.load_model()
    used = setup.used(weights, own)
    elsewhere = TrainedModel(run_dir.card(), setup.method, setup.training.model, weights, own)
    scores, cases, samples, probabilities, moments = {}, {}, {}, {}, {}
    keeps = tells_statistics(setup.experiment.privacy, setup.training.model)
    for site in (*setup.federation.sites, *setup.unseen):
        if site in setup.unseen:
            outputs = elsewhere.outputs(site, "test", device=str(setup.training.device))
        else:
            outputs = setup.predict(site, "test", used(site.name))
        scores[site.name] = score(outputs, site, "test")
        of_cases = case_scores(setup.metric, outputs, site, "test")
        cases[site.name] = asdict(of_cases)
        samples.update(sample(site, outputs, of_cases, normalizer_of(setup.training.model)))
        if site.task == "classification":
            probabilities[f"{site.name}/probabilities"] = outputs
            probabilities[f"{site.name}/targets"] = np.asarray(site.test.targets)
        if keeps and site in setup.federation.sites:
            moments[site.name] = of_site(setup.training.model, site.train, setup.training.device)
    if moments:
        run_dir.save_moments(moments)
    save_arrays(run_dir.folder / "samples.npz", samples)
    if probabilities:
        save_arrays(run_dir.folder / "probabilities.npz", probabilities)
    layer = normalizer_of(setup.training.model)
    if layer is not None and (common := common_spectrum(layer)) is not None:
        spectra = {f"sites/{site.name}": spectrum(site) for site in setup.federation.sites}
        save_arrays(run_dir.folder / "amplitudes.npz", {"common": common, **spectra})
    run_dir.save_cases(cases)
    return scores


def _finish(setup: Setup, run_dir: RunDir, checkpoint: Checkpoint) -> dict[str, Any]:
    """Test the chosen model, once, and write the result."""
    sites, scores = setup.federation.sites, _test(setup, run_dir)
    every = (*sites, *setup.unseen)
    unseen = {site.name: scores[site.name] for site in setup.unseen}
    test = {site.name: scores[site.name] for site in sites}
    records = run_dir.records()
    if len(records) != checkpoint.server.round:
        raise RunError(f"{run_dir.folder}/rounds.jsonl: must have {checkpoint.server.round} rounds, has {len(records)}")
    result = {
        "name": setup.experiment.run.name,
        "method": setup.experiment.method["name"],
        "task": setup.federation.info.task,
        "classes": list(setup.federation.info.classes),
        "main_metric": setup.metric,
        "chosen_round": checkpoint.best_round,
        "rounds": len(records),
        "num_images": {site.name: {split: len(site.split(split)) for split in SPLITS} for site in every},
        "val": records[checkpoint.best_round - 1]["val"],
        "test": test,
        "unseen": unseen,
        "summary": asdict(setup.summary(test)),
        "seconds_per_round": round(float(np.median([record["seconds"] for record in records])), 4),
        "num_params": sum(p.numel() for p in setup.training.model.parameters()),
        "passes": setup.method.passes,
        "remarks": setup.cautions(),
    }
    run_dir.finish(result)
    return run_dir.result()


def _fits(weights: Arrays, start: Arrays) -> bool:
    """Whether the names are the same, and the shapes too but for an amplitude that was yet to be learnt."""
    return weights.keys() == start.keys() and all(
        not start[name].numel() or weights[name].shape == start[name].shape for name in weights
    )


def _versions() -> Mapping[str, str]:
    packages = ("harmofl", "torch", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
