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
from harmofl.experiment.config import Experiment
from harmofl.experiment.run_dir import RunDir
from harmofl.methods import METHODS, search_space
from harmofl.types import Progress, Tell
from harmofl.utils.atomic_files import write_atomic

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
    base: Experiment, variants: Sequence[Variant], trials: int, out: Path, told: Tell | None = None
) -> dict[str, list[SearchTrial]]:
    """Run `trials` trials of every method and write the best hyperparameters of each to `tuned.toml`.

    The first trial uses the method's defaults; later ones are drawn by optuna's TPE from the earlier trials. Only
    validation scores are used. A search that was stopped is resumed: finished trials are not run again.

    Raises:
        ConfigError: if optuna is not installed or `trials` is below 1.
        TrainingError: if no trial of any method finished.
    """
    optuna = _optuna()
    if trials < 1:
        raise ConfigError(f"--trials must be at least 1, got {trials}")
    found: dict[str, list[SearchTrial]] = {}
    total = base.training.rounds * trials * len(variants)
    with rounds_bar(total) as bar:
        for index, variant in enumerate(variants):
            ranges = spans(base, variant).items()
            space = {key: optuna.distributions.FloatDistribution(*ends, log=True) for key, ends in ranges}
            study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=base.run.seed))
            for number in range(trials):
                before = base.training.rounds * (trials * index + number)
                asked = study.ask(space) if number else None
                changes = {key: float(f"{value:.3g}") for key, value in asked.params.items()} if asked else {}
                trial = _try(base, variant, number, changes, out, partial(_as_part, bar, before, total), told)
                told = None  # once
                found.setdefault(variant.label, []).append(trial)
                if asked and np.isnan(trial.score):
                    study.tell(asked, state=optuna.trial.TrialState.FAIL)
                elif asked:
                    study.tell(asked, trial.score)
    ended = {label: [trial for trial in tried if not np.isnan(trial.score)] for label, tried in found.items()}
    best = {label: dict(max(tried, key=lambda one: one.score).changes) for label, tried in ended.items() if tried}
    if not best:
        first = next(iter(found.values()))[0]
        raise TrainingError(f"{out}: at least one trial must finish, but all failed; the first error: {first.error}")
    write_atomic(out / "tuned.toml", tomli_w.dumps(best).encode())
    return found


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError("harmofl search needs optuna; install it with `pip install 'harmofl[search]'`") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _as_part(bar: Progress, before: int, total: int, what: str, done: int, _: int) -> None:
    bar(what, before + done, total)


def _try(
    base: Experiment,
    variant: Variant,
    number: int,
    changes: Mapping[str, float],
    out: Path,
    progress: Progress,
    told: Tell | None,
) -> SearchTrial:
    named = Variant(f"{variant.label}-try-{number}", variant.method, {**variant.changes, **changes})
    jobs: list[Job] = plan_jobs(base, [named], [base.run.seed], out)
    check_earlier(jobs, out)
    if number == 0:
        try_first(jobs, told)
    failed = carry_out(jobs, 1, progress)
    if failed:
        return SearchTrial(variant, changes, float("nan"), failed[0][1])
    result = RunDir(jobs[0].folder).result()
    scores = [values[result["main_metric"]] for values in result["val"].values()]
    return SearchTrial(variant, changes, float(np.mean([np.nan if s is None else s for s in scores])))
