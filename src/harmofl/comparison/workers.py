"""Carrying out the runs of a comparison, some at a time, in whatever state an earlier call left them."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harmofl.comparison.plan import Job
from harmofl.data.checks.quick_checks import tell_understood
from harmofl.data.layout.reader import read_layout, settle
from harmofl.errors import HarmoFLError
from harmofl.experiment.config import Experiment
from harmofl.experiment.run_dir import RoundRecord, RunDir
from harmofl.experiment.setup import Setup
from harmofl.experiment.trainer import Callback, resume, run
from harmofl.types import Tell
from harmofl.utils.atomic_files import storing
from harmofl.utils.child_processes import end_with_parent, without_interrupts

Told = Callable[[int, str], None]
"""Told how many rounds of all are done, and what has just happened or ""."""


def try_first(jobs: Sequence[Job], say: Tell | None = None) -> None:
    """Make the first run that is to begin ready and drop it again: what is wrong for all is said once, before any run.

    Args:
        jobs: the runs.
        say: told in one line each what was understood of the folder, and warnings.

    Raises:
        HarmoFLError: one line about what does not hold.
    """
    new = [job for job in jobs if not RunDir(job.folder).config_path.exists() and not _has_result(job)]
    if new:
        Setup.prepare(new[0].experiment, lambda site, done, total: None, None, say)
    elif say and (begun := [job for job in jobs if not _has_result(job)]):
        experiment = begun[0].experiment
        files = settle(
            read_layout(experiment.data.folder, seed=experiment.split_seed),
            experiment.data.size,
            experiment.data.channels,
        )
        tell_understood(files, experiment.data.folder, say)


def _has_result(job: Job) -> bool:
    return RunDir(job.folder).result_path.exists()


def carry_out(jobs: Sequence[Job], workers: int, told: Told) -> list[tuple[Job, str]]:
    """Run every job that has no result yet; one that an earlier call began goes on where it was.

    Args:
        jobs: the runs.
        workers: how many at a time, each in a process of its own; 1 runs them in this one.
        told: told of the progress.

    Returns:
        What went wrong, in one line, for every job that did; the others go on regardless.
    """
    todo = [job for job in jobs if not _has_result(job)]
    told(_rounds_done(jobs), "")
    if workers == 1 or len(todo) < 2:
        return _in_turn(jobs, todo, told)
    return _side_by_side(jobs, todo, min(workers, len(todo)), told)


def _in_turn(jobs: Sequence[Job], todo: Sequence[Job], told: Told) -> list[tuple[Job, str]]:
    class Counting(Callback):
        def on_round_end(self, record: RoundRecord) -> None:
            told(_rounds_done(jobs), "")

    failed = []
    for job in todo:
        error = _one(job.experiment.model_dump(mode="json"), job.folder, Counting())
        if error:
            failed.append((job, error))
        told(_rounds_done(jobs), _said(job, error))
    return failed


def _side_by_side(jobs: Sequence[Job], todo: Sequence[Job], workers: int, told: Told) -> list[tuple[Job, str]]:
    failed: list[tuple[Job, str]] = []
    with _pool(workers) as pool:
        with without_interrupts():  # the first jobs start the processes
            pending: dict[Future[str], Job] = {
                pool.submit(_one, job.experiment.model_dump(mode="json"), job.folder): job for job in todo
            }
        while pending:
            done, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
            told(_rounds_done(jobs), "")
            for future in done:
                job = pending.pop(future)
                error = f"its process ended ({future.exception()})" if future.exception() else future.result()
                if error:
                    failed.append((job, error))
                told(_rounds_done(jobs), _said(job, error))
    return failed


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that leave Ctrl-C to this one, and end with it."""
    context = multiprocessing.get_context("spawn")
    devices = context.SimpleQueue()
    for index in range(workers):
        devices.put(index)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(devices,))
    try:
        yield pool
    except BaseException:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(devices: Any) -> None:
    """In a new worker: end with the parent, however that ends; take one GPU of its own, if there are several."""
    end_with_parent()
    index = devices.get()
    import torch

    if torch.cuda.device_count() > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        torch.cuda.set_device(index % torch.cuda.device_count())


def _one(tables: dict[str, Any], folder: Path, watch: Callback | None = None) -> str:
    """Run or go on with one experiment; returns what went wrong."""
    try:
        if RunDir(folder).config_path.exists():
            resume(folder, watch)
        else:
            with storing(folder.parent):
                folder.parent.mkdir(parents=True, exist_ok=True)
            run(Experiment.model_validate(tables), folder, watch)
    except HarmoFLError as error:
        return " ".join(str(error).split())
    return ""


def _said(job: Job, error: str) -> str:
    where = f" without {job.left_out}" if job.left_out else ""
    return f"{job.variant.label}, seed {job.seed}{where}: {f'failed: {error}' if error else 'done'}"


def _rounds_done(jobs: Sequence[Job]) -> int:
    return sum(_lines(job.folder / "rounds.jsonl") for job in jobs)


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0
