"""Hyperparameter search by validation score, with the same number of trials for every method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from harmofl.comparison.plan import Job, check_earlier, plan_jobs
from harmofl.comparison.progress import rounds_bar
from harmofl.comparison.variants import Variant
from harmofl.comparison.workers import carry_out, try_first
from harmofl.errors import ConfigError, TrainingError
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.tables import Experiment
from harmofl.methods import METHODS, search_space
from harmofl.types import Progress, Tell
from harmofl.utils.atomic_files import write_atomic
from harmofl.utils.lazy_imports import optional

Spans = Mapping[str, tuple[float, float]]
"""Hyperparameter -> lowest and highest value; draws are log-uniform."""


@dataclass(frozen=True)
class SearchTrial:
    """One trial.

    Args:
        variant: the method.
        changes: the hyperparameters of the trial; empty for the defaults of the method.
        score: validation score of the best round, mean over sites; NaN if the run failed.
        error: the error of a failed run, in one line.
    """

    variant: Variant
    changes: Mapping[str, float]
    score: float
    error: str = ""


def spans(base: Experiment, variant: Variant) -> Spans:
    """Return the search space of a method: its hyperparameters, and the learning rate from lr / 10 to 10 lr."""
    lr = base.training.lr or 1e-3
    own = {f"method.{key}": span for key, span in search_space(METHODS[variant.method]).items()}
    return {"training.lr": (lr / 10, lr * 10), **own}


def search(
    base: Experiment,
    variants: Sequence[Variant],
    trials: int,
    out: Path,
    told: Tell | None = None,
    cluster: str = "",
) -> dict[str, list[SearchTrial]]:
    """Run `trials` trials of every method and write the best hyperparameters of each to `tuned.toml`.

    The first trial uses the method's defaults; later ones are drawn by optuna's TPE from the method's earlier trials,
    so that only trials of different methods can run in parallel. Only validation scores are used. A search that was
    stopped is resumed: finished trials are not run again.

    Args:
        base: the experiment.
        variants: the methods.
        trials: number of trials per method.
        out: the folder for the runs and tuned.toml.
        told: called with one line each for the detected data layout and for warnings.
        cluster: address or scheduler file of a Dask scheduler that runs a trial of every method at a time; "" runs one
            trial at a time in this process.

    Returns:
        The trials in their order, by the label of the method.

    Raises:
        ConfigError: if optuna is not installed, `trials` is below 1, or the cluster cannot be used.
        TrainingError: if no trial of any method finished.
    """
    optuna = optional("optuna", "harmofl search", "search")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if trials < 1:
        raise ConfigError(f"--trials must be at least 1, got {trials}")
    found: dict[str, list[SearchTrial]] = {variant.label: [] for variant in variants}
    samplers = {variant.label: _Sampler(optuna, base, variant) for variant in variants}
    at_once = base.training.rounds * len(variants)
    with rounds_bar(at_once * trials) as bar:
        for number in range(trials):
            drawn = {label: sampler.draw(number) for label, sampler in samplers.items()}
            progress = partial(_as_part, bar, at_once * number, at_once * trials)
            for trial in _try(base, variants, number, drawn, out, progress, told, cluster):
                found[trial.variant.label].append(trial)
                samplers[trial.variant.label].tell(trial.score)
    ended = {label: [trial for trial in tried if not np.isnan(trial.score)] for label, tried in found.items()}
    best = {label: dict(max(tried, key=lambda one: one.score).changes) for label, tried in ended.items() if tried}
    if not best:
        first = next(iter(found.values()))[0]
        raise TrainingError(f"{out}: at least one trial must finish, but all failed; the first error: {first.error}")
    write_atomic(out / "tuned.toml", tomli_w.dumps(best).encode())
    return found


class _Sampler:
    """Draws the trials of one method by optuna's TPE; trial 0 has the defaults and tells the sampler nothing."""

    def __init__(self, optuna: Any, base: Experiment, variant: Variant) -> None:
        distribution, self._states = optuna.distributions.FloatDistribution, optuna.trial.TrialState
        self._space = {key: distribution(*ends, log=True) for key, ends in spans(base, variant).items()}
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=base.run.seed))
        self._asked: Any = None

    def draw(self, number: int) -> dict[str, float]:
        """Return the hyperparameters of the trial of this number, rounded to three digits."""
        self._asked = self._study.ask(self._space) if number else None
        return {key: float(f"{value:.3g}") for key, value in self._asked.params.items()} if self._asked else {}

    def tell(self, score: float) -> None:
        """Record the score of the last drawn trial; NaN for a failed one."""
        if self._asked and np.isnan(score):
            self._study.tell(self._asked, state=self._states.FAIL)
        elif self._asked:
            self._study.tell(self._asked, score)


def _as_part(bar: Progress, before: int, total: int, what: str, done: int, _: int) -> None:
    bar(what, before + done, total)


def _try(
    base: Experiment,
    variants: Sequence[Variant],
    number: int,
    drawn: Mapping[str, Mapping[str, float]],
    out: Path,
    progress: Progress,
    told: Tell | None,
    cluster: str,
) -> list[SearchTrial]:
    """Run the trial of this number of every method, with the hyperparameters drawn for its label."""
    named = [
        Variant(f"{variant.label}-try-{number}", variant.method, {**variant.changes, **drawn[variant.label]})
        for variant in variants
    ]
    jobs: list[Job] = plan_jobs(base, named, [base.run.seed], out)
    check_earlier(jobs, out)
    if number == 0:
        for job in jobs:
            try_first([job], told if job is jobs[0] else None)
    failed = {job.variant.label: error for job, error in carry_out(jobs, 1, progress, cluster)}
    found = []
    for variant, job in zip(variants, jobs, strict=True):
        error = failed.get(job.variant.label, "")
        found.append(SearchTrial(variant, drawn[variant.label], float("nan") if error else _score(job), error))
    return found


def _score(job: Job) -> float:
    """Return the validation score of the best round of a finished run, mean over sites."""
    result = RunDir(job.folder).result()
    scores = [values[result["main_metric"]] for values in result["val"].values()]
    return float(np.mean([np.nan if s is None else s for s in scores]))
