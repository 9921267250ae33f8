"""The runs of a comparison: one a variant, seed and, if asked for, left-out site, each in a folder of its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harmofl.comparison.variants import Variant
from harmofl.config import Experiment, available_cores, changed, validated
from harmofl.errors import ConfigError, RunError
from harmofl.files import storing, write_atomic
from harmofl.methods import METHODS, make_method

Budget = Literal["rounds", "gradients"]


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        variant: what is compared.
        seed: of the run.
        left_out: the site that does not train, or "".
        folder: the run folder.
        experiment: what is run.
    """

    variant: Variant
    seed: int
    left_out: str
    folder: Path
    experiment: Experiment


def plan(
    base: Experiment,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    out: Path,
    *,
    equal: Budget = "rounds",
    left_out: Sequence[str] = ("",),
) -> list[Job]:
    """All runs, seed by seed, so that what is there at any moment can be compared.

    Network, normalization, initial weights, order of the images and the split are those of `base` and the seed in every
    run; the split, where the data gives none, is drawn once for all seeds, so that test cases can be paired.

    Args:
        base: the experiment.
        variants: what is compared.
        seeds: of the runs.
        out: the folder of the comparison.
        equal: "rounds" gives every method the same; "gradients" divides them by the gradients a step takes.
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
        if not (site and not METHODS[variant.method].sends and not METHODS[variant.method].pooled)
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
    tables = base.model_dump(exclude={"method"})
    experiment = validated(changed(tables, common | variant.settings(base.method)), f"method {variant.label}")
    if equal == "rounds":
        return experiment
    options = dict(experiment.method)
    passes = make_method(options.pop("name"), options).passes
    rounds = max(1, round(experiment.training.rounds / passes))
    return validated(changed(experiment.model_dump(), {"training.rounds": rounds}), f"method {variant.label}")


def record(jobs: Sequence[Job], out: Path) -> None:
    """Write down what is run in `plan.json`, beside what earlier calls with this folder ran.

    Raises:
        RunError: if the folder has a run of that name with other settings.
    """
    path = out / "plan.json"
    try:
        earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise RunError(f"{path}: could not be read ({error}); choose another --out") from None
    now = {str(job.folder.relative_to(out)): job.experiment.model_dump(mode="json") for job in jobs}
    for name, experiment in now.items():
        if name in earlier and (difference := _difference(earlier[name], experiment)):
            raise RunError(
                f"{out / name}: holds a run with other settings ({difference}); choose another --out, or delete it"
            )
    with storing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({**earlier, **now}, indent=1).encode())


def _difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """The first setting that is not the same; one that an earlier version of this package did not have is."""
    for table in b:
        new = set() if table == "method" else b[table].keys() - a[table].keys()
        for key in {**a[table], **b[table]}:
            before, now = a[table].get(key), b[table].get(key)
            if before != now and key not in new:
                return f"{table}.{key} was {before!r}, is {now!r}"
    return ""


def default_workers(base: Experiment) -> int:
    """How many runs at a time: one a GPU, or as many as there are cores for their threads."""
    if base.run.device.startswith("cuda") or base.run.device == "auto":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.device_count() if base.run.device in ("cuda", "auto") else 1
    return max(1, available_cores() // (base.run.threads or 1))
