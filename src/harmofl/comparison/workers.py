"""Runs the jobs of a comparison in parallel and resumes the ones that an earlier call began."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harmofl.comparison.cluster import Ended, run_on_cluster
from harmofl.comparison.plan import Job
from harmofl.data.checks.quick_checks import tell_understood
from harmofl.data.layout.reader import read_layout, settle
from harmofl.errors import HarmoFLError, RunError
from harmofl.experiment.callbacks import Callback
from harmofl.experiment.config import validated
from harmofl.experiment.round_record import RoundRecord
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.setup import Setup
from harmofl.experiment.trainer import resume, run
from harmofl.types import Progress, Tell
from harmofl.utils.atomic_files import make_folder
from harmofl.utils.child_processes import end_with_parent, without_interrupts


def try_first(jobs: Sequence[Job], told: Tell | None = None) -> None:
    """Prepare the first new run and discard it, so that an error common to all runs is raised once, before training.

    Args:
        jobs: the runs.
        told: called with one line each for the detected data layout and for warnings.

    Raises:
        HarmoFLError: if the run cannot be prepared, or the images are not those of the earlier runs.
    """
    new = [job for job in jobs if not RunDir(job.folder).config_path.exists() and not _has_result(job)]
    if new:
        setup = Setup.prepare(new[0].experiment, lambda site, done, total: None, None, told)
        _check_images(setup, new[0], [job for job in jobs if job not in new])
    elif told and (begun := [job for job in jobs if not _has_result(job)]):
        experiment = begun[0].experiment
        files = settle(
            read_layout(experiment.data.folder, seed=experiment.split_seed),
            experiment.data.size,
            experiment.data.channels,
        )
        tell_understood(files, experiment.data.folder, told)


def _check_images(setup: Setup, new: Job, earlier: Sequence[Job]) -> None:
    """Raise RunError if a run with the same settings of images was trained on others than there are now."""
    data, local = new.experiment.data, new.experiment.arrangement == "local"  # unseen sites are none of it for `local`
    alike = [job for job in earlier if (job.experiment.data, job.experiment.arrangement == "local") == (data, local)]
    images = setup.card()["fingerprint"] if alike else None  # which reads all images
    for job in alike:
        if RunDir(job.folder).card().get("fingerprint", images) != images:
            raise RunError(
                f"{job.folder}: must have been trained on the images that are in {data.folder} now, but they have "
                "changed; restore them, choose another --out, or delete it"
            )


def _has_result(job: Job) -> bool:
    return RunDir(job.folder).result_path.exists()


def carry_out(jobs: Sequence[Job], workers: int, progress: Progress, cluster: str = "") -> list[tuple[Job, str]]:
    """Run every job without a result; resume the ones that an earlier call began.

    Args:
        jobs: the runs.
        workers: number of parallel runs, each in its own process; 1 runs them in this process.
        progress: called with a line on a run that has ended, or "", the number of finished rounds of all runs and the
            number of all rounds.
        cluster: address or scheduler file of a Dask scheduler whose workers run the jobs, see
            `harmofl.comparison.cluster.run_on_cluster`; "" runs them on this machine.

    Returns:
        The failed jobs, each with its error in one line; a failed job does not stop the others.

    Raises:
        HarmoFLError: if the cluster cannot be used.
    """
    todo, failed = [job for job in jobs if not _has_result(job)], list[tuple[Job, str]]()
    total = sum(job.experiment.training.rounds for job in jobs)

    def told(line: str) -> None:
        progress(line, sum(job.rounds_done() for job in jobs), total)

    def ended(job: Job, error: str) -> None:
        if error:
            failed.append((job, error))
        told(_said(job, error))

    told("")
    if cluster and todo:
        run_on_cluster(todo, cluster, told, ended)
    elif workers == 1 or len(todo) < 2:
        _in_turn(todo, told, ended)
    else:
        _side_by_side(todo, min(workers, len(todo)), told, ended)
    return failed


def _in_turn(todo: Sequence[Job], told: Tell, ended: Ended) -> None:
    class Counting(Callback):
        def on_round_end(self, record: RoundRecord) -> None:
            told("")

    for job in todo:
        ended(job, run_or_resume(job.experiment.model_dump(mode="json"), job.folder, Counting()))


def _side_by_side(todo: Sequence[Job], workers: int, told: Tell, ended: Ended) -> None:
    with _pool(workers) as pool:
        with without_interrupts():  # the first jobs start the processes
            pending: dict[Future[str], Job] = {
                pool.submit(run_or_resume, job.experiment.model_dump(mode="json"), job.folder): job for job in todo
            }
        while pending:
            done, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
            told("")
            for future in done:
                death = future.exception()
                ended(pending.pop(future), f"its process ended unexpectedly ({death})" if death else future.result())


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of worker processes that ignore Ctrl-C and end with this process."""
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
    """Initialize a worker process: end it with the parent; give it its own GPU if there are several."""
    end_with_parent()
    index = devices.get()
    import torch

    if torch.cuda.device_count() > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        torch.cuda.set_device(index % torch.cuda.device_count())


def run_or_resume(tables: dict[str, Any], folder: Path, *callbacks: Callback) -> str:
    """Run or resume one experiment; return its error message, or ""."""
    try:
        if RunDir(folder).config_path.exists():
            resume(folder, callbacks)
        else:
            make_folder(folder.parent)
            run(validated(tables, folder.name), folder, callbacks)
    except HarmoFLError as error:
        return " ".join(str(error).split())
    return ""


def _said(job: Job, error: str) -> str:
    where = f" without {job.left_out}" if job.left_out else ""
    return f"{job.variant.label}, seed {job.seed}{where}: {f'failed: {error}' if error else 'done'}"
