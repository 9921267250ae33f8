"""The runs of a comparison: one for each variant, seed and left-out site, each in its own run folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harmofl.comparison.variants import Variant
from harmofl.errors import ConfigError, RunError
from harmofl.experiment.config import changed, load_experiment, resolved, validated
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.tables import Experiment
from harmofl.types import Task
from harmofl.utils.atomic_files import check_writable

Budget = Literal["rounds", "gradients"]


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        variant: the compared variant.
        seed: seed of the run.
        left_out: the site that does not train, or "".
        folder: the run folder.
        experiment: the experiment to run.
    """

    variant: Variant
    seed: int
    left_out: str
    folder: Path
    experiment: Experiment

    def rounds_done(self) -> int:
        """Return the number of recorded rounds, also while the run goes on in another process."""
        try:
            return (self.folder / "rounds.jsonl").read_bytes().count(b"\n")
        except OSError:
            return 0


def plan_jobs(
    base: Experiment,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    out: Path,
    *,
    equal: Budget = "rounds",
    left_out: Sequence[str] = ("",),
) -> list[Job]:
    """Return all runs, ordered by seed, so that a partly finished comparison has the same seeds for all variants.

    Network, normalization, initial weights, order of the images and the split are those of `base` and the seed in every
    run; the split, where the data gives none, is drawn once for all seeds, so that test cases can be paired.

    Args:
        base: the experiment.
        variants: the compared variants.
        seeds: seeds of the runs.
        out: the folder of the comparison.
        equal: "rounds" gives every method the same number of rounds; "gradients" divides the number of rounds by the
            number of gradients that a step takes.
        left_out: sites to leave out in turn; "" leaves out none.

    Raises:
        ConfigError: if a variant's settings are unknown or out of range.
    """
    if equal not in ("rounds", "gradients"):
        raise ConfigError(f"--equal must be rounds or gradients, got {equal!r}")
    return [
        Job(variant, seed, site, folder, _experiment(base, variant, seed, seeds[0], out, equal, site))
        for seed in seeds
        for variant in variants
        for site in left_out
        if variant.common or not site
        for folder in [out / variant.folder / (f"seed-{seed}" + (f"-without-{site}" if site else ""))]
    ]


def _experiment(
    base: Experiment, variant: Variant, seed: int, split_seed: int, out: Path, equal: Budget, left_out: str
) -> Experiment:
    common: dict[str, Any] = {
        "run.seed": seed,
        "run.name": variant.folder,
        "run.threads": base.run.threads or 1,
        "data.cache": base.data.cache or out / "cache",
        "data.split_seed": split_seed if base.data.split_seed is None else base.data.split_seed,
    }
    if left_out:
        common["data.unseen"] = (left_out,)
    tables = base.model_dump(exclude={"method_table"})
    experiment = validated(changed(tables, common | variant.settings(base.method_table)), f"method {variant.label}")
    if equal == "rounds":
        return experiment
    rounds = max(1, int(experiment.training.rounds / experiment.method.passes))
    return validated(changed(experiment.model_dump(), {"training.rounds": rounds}), f"method {variant.label}")


IGNORED = {"data": ("cache", "source"), "run": ("name", "checkpoint_every", "workers")}
"""Settings that do not change a result, by table."""


def check_earlier(jobs: Sequence[Job], out: Path) -> None:
    """Check that `out` can be a folder, and that existing runs in it fit these jobs.

    Raises:
        ConfigError: if `out` cannot be a folder, or is that of a run or of the data.
        StorageError: if `out` cannot be written.
        RunError: if a run folder was made with other settings, or cannot be read; or if the folder holds runs of other
            methods on other data or with another network.
    """
    check_writable(out)
    if RunDir(out).config_path.exists():
        raise ConfigError(f"{out}: must be a folder for runs and tables, but holds a run itself; choose another --out")
    if any(job.experiment.data.folder.resolve() == out.resolve() for job in jobs):
        raise ConfigError(
            f"{out}: must be a folder for runs and tables, but is that of the images; choose another --out"
        )
    _check_others(jobs, out)
    for job in jobs:
        run_dir = RunDir(job.folder)
        if not run_dir.config_path.exists():
            if run_dir.result_path.exists():
                raise RunError(
                    f"{job.folder}: must have the config.toml with which it was trained, but has none; restore it, or "
                    "delete the folder and repeat the command"
                )
            continue
        RunDir.open(job.folder)
        ran = load_experiment(run_dir.config_path, {})
        task = run_dir.card().get("task")
        if task != "classification" and task != "segmentation":
            raise RunError(
                f"{job.folder}: model.json must name the task, but is damaged; delete the folder and repeat the command"
            )
        ran, now = (resolved(one, task) for one in (ran, job.experiment))  # settings that are new have their defaults
        if found := _difference(ran.model_dump(mode="json"), now.model_dump(mode="json")):
            raise RunError(
                f"{job.folder}: must hold a run with the same settings, but {found}; choose another --out, or delete it"
            )


def _check_others(jobs: Sequence[Job], out: Path) -> None:
    """Raise RunError if a run of `out` that is none of the jobs has other data or another network than all jobs."""
    mine = {job.folder.resolve() for job in jobs}
    others = [path for path in sorted(out.glob("*/seed-*/config.toml")) if path.parent.resolve() not in mine]
    common: dict[Task, dict[str, dict[str, Any]]] = {}
    for run_dir in (RunDir(path.parent) for path in others):
        task = run_dir.card().get("task") if run_dir.result_path.exists() else None
        if task != "classification" and task != "segmentation":
            continue
        now = common[task] = common.get(task) or _common(jobs, task)
        ran = _of_data(load_experiment(run_dir.config_path, {}), task)
        known = {table: {key: value for key, value in ran[table].items() if key in now[table]} for table in now}
        if found := _difference(known, now):
            raise RunError(
                f"{out}: must not hold runs on other data or with another network, but of "
                f"{run_dir.config_path.parent} {found}; choose another --out"
            )


def _common(jobs: Sequence[Job], task: Task) -> dict[str, dict[str, Any]]:
    """Return the settings of data and network that all jobs share."""
    first, *others = [_of_data(job.experiment, task) for job in jobs]
    return {
        table: {key: value for key, value in settings.items() if all(one[table][key] == value for one in others)}
        for table, settings in first.items()
    }


def _of_data(experiment: Experiment, task: Task) -> dict[str, Any]:
    return resolved(experiment, task).model_dump(mode="json", include={"data", "network"})


def _difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Return the first setting that differs, except those in `IGNORED`; "" if there is none."""
    for table in b:
        for key in {**a[table], **b[table]}:
            before, now = a[table].get(key), b[table].get(key)
            if before != now and key not in IGNORED.get(table, ()):
                return f"{table}.{key} was {before!r} and is now {now!r}"
    return ""
