"""The plan of a reproduction: hardware, hours of every method, memory and disk, estimated before training."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harmofl.comparison.plan import Job
from harmofl.data.manifest import SPLITS, read_manifest
from harmofl.experiment.cost_estimate import Forecast, estimate_cost
from harmofl.experiment.model_build import device_of
from harmofl.report.scores import duration
from harmofl.types import Progress
from harmofl.utils.hardware import available_cores, free_memory, processes_that_fit


@dataclass(frozen=True)
class MethodPlan:
    """The work that is left for one method.

    Args:
        label: the label of the method.
        forecast: the estimated cost of one whole run.
        seconds: seconds that the rest of each unfinished run takes.
    """

    label: str
    forecast: Forecast
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class WorkPlan:
    """The work that is left for all methods.

    Args:
        methods: one plan for each method with unfinished runs.
        workers: number of parallel runs.
        hardware: the device and the cores, in words.
    """

    methods: tuple[MethodPlan, ...]
    workers: int
    hardware: str

    @property
    def total(self) -> float:
        """The seconds of all runs, one after the other."""
        return sum(sum(method.seconds) for method in self.methods)

    @property
    def passed(self) -> float:
        """The seconds until the end, with runs side by side."""
        longest = max((max(method.seconds) for method in self.methods), default=0.0)
        return max(self.total / self.workers, longest)

    @property
    def memory(self) -> int:
        """The bytes of memory of one run."""
        return max((method.forecast.memory for method in self.methods), default=0)

    @property
    def disk(self) -> int:
        """The bytes of the run folders that are not finished."""
        return sum(method.forecast.disk * len(method.seconds) for method in self.methods)


def plan_work(jobs: Sequence[Job], workers: int, budget: float, progress: Progress) -> WorkPlan:
    """Estimate what is left of the jobs by measuring some steps of every method.

    Args:
        jobs: the runs, finished ones too.
        workers: number of parallel runs; 0 for as many as cores or GPUs and free memory allow.
        budget: seconds for measuring each method, see `estimate_cost`.
        progress: see `estimate_cost`.

    Raises:
        HarmoFLError: for the errors that would prevent a run.
    """
    left: dict[str, list[Job]] = {}
    for job in jobs:
        if not (job.folder / "result.json").exists():
            left.setdefault(job.variant.label, []).append(job)
    methods = tuple(_method_plan(label, of_method, budget, progress) for label, of_method in left.items())
    run = jobs[0].experiment.run
    plan = WorkPlan(methods, workers or processes_that_fit(run.device, run.threads), _hardware(run.device))
    fitting = max(1, free_memory() // max(plan.memory, 1))
    return plan if workers else WorkPlan(methods, min(plan.workers, fitting), plan.hardware)


def _method_plan(label: str, jobs: Sequence[Job], budget: float, progress: Progress) -> MethodPlan:
    def named(what: str, done: int, total: int) -> None:
        progress(f"{label}: {what}", done, total)

    found = estimate_cost(jobs[0].experiment, named, budget)
    fixed = found.start + found.test
    rounds = (max(0, 1 - job.rounds_done() / job.experiment.training.rounds) for job in jobs)
    return MethodPlan(label, found, tuple(fixed + (found.seconds - fixed) * part for part in rounds))


def _hardware(device: str) -> str:
    import torch

    cores = f"{available_cores()} cores"
    if device_of(device).type != "cuda":
        return f"{device_of(device).type}, {cores}"
    count = torch.cuda.device_count()
    return f"{count} GPU{'s' * (count > 1)} ({torch.cuda.get_device_name()}), {cores}"


def split_line(data: Path, split: str) -> str:
    """Return a line with the number of files of every site of a federation, by split if that is the given one."""
    counts = []
    for path in sorted(data.glob("*/manifest.csv")):
        splits = [record.split for record in read_manifest(path.parent)]
        parts = [splits.count(name) for name in SPLITS] if split == "given" else [len(splits)]
        counts.append(f"{path.parent.name} {'/'.join(map(str, parts))}")
    how = "/".join(SPLITS) if split == "given" else "single images drawn for train, val and test"
    return f"files   {how}: {', '.join(counts)}"


def plan_lines(plan: WorkPlan, out: Path) -> Iterator[str]:
    """Yield the lines of a plan."""
    if not plan.methods:
        yield "time    all runs are finished"
        return
    yield f"device  {plan.hardware}"
    for method in plan.methods:
        count, found = len(method.seconds), method.forecast
        left = f"{duration(sum(method.seconds))} for {count} run{'s' * (count > 1)}"
        idle = f"; other processes keep the cores busy, on idle ones a run takes at most {duration(found.idle)}"
        short = ", measured on few steps" * found.short + idle * found.busy
        yield f"time    {method.label}: {left}, {found.a_round:.2f} s a round, {_rounds(found.rounds)}{short}"
    side = f"; {plan.workers} at a time take {duration(plan.passed)} if they do not slow each other down"
    yield f"time    in all {duration(plan.total)} of runs, one after the other{side * (plan.workers > 1)}"
    free = shutil.disk_usage(out).free
    needed, memory = plan.memory * plan.workers, free_memory()
    yield f"memory  {needed / 1e9:.1f} GB for {plan.workers} at a time, {memory / 1e9:.1f} GB free"
    used = _size(out) / 1e9
    yield f"disk    {used:.2f} GB in {out} now, runs need {plan.disk / 1e9:.2f} GB, {free / 1e9:.1f} GB free"
    if needed > memory or plan.disk > free:
        yield "warning: this machine may lack memory or disk for the plan; see --workers and --out"


def _rounds(count: int) -> str:
    return f"{count} round{'s' * (count != 1)}"


def _size(folder: Path) -> int:
    """Return the bytes of the files in a folder, without those that are links to the download."""
    stats = (path.stat() for path in folder.rglob("*") if path.is_file())
    return sum(found.st_size for found in stats if found.st_nlink == 1)
