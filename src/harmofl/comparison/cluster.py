"""Runs the jobs of a comparison on the workers of a Dask scheduler, which share a file system with this machine.

A job is one task. The worker that gets the task trains in a process of its own, as `--workers` does on one machine, so
that the worker's threads are the number of parallel runs. The process writes the run folder. If its worker dies, the
scheduler gives the task to another worker, which resumes from the checkpoint in the folder.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from harmofl.comparison.plan import Job
from harmofl.errors import ConfigError, HarmoFLError, TrainingError
from harmofl.experiment.run_dir import RunDir
from harmofl.types import Tell
from harmofl.utils.atomic_files import is_locked, storing
from harmofl.utils.child_processes import end_with_parent
from harmofl.utils.lazy_imports import optional
from harmofl.utils.package_versions import package_versions

CONNECT_SECONDS = 20.0
"""Longest wait for a connection to the scheduler."""
DELAY_SECONDS = 90.0
"""Longest wait for a network file system to show a file of another machine, or to release the lock of a dead one."""
POLL_SECONDS = 0.5
Ended = Callable[[Job, str], None]
"""Called with each job that has ended, and its error in one line or ""."""


@dataclass(frozen=True)
class Shared:
    """Requirements of every worker.

    Args:
        versions: the versions that it must have, by package.
        results: a file in the results folder that it must see.
        current: the folder to run in, if the worker has it.
    """

    versions: Mapping[str, str]
    results: Path
    current: Path


def run_on_cluster(jobs: Sequence[Job], address: str, told: Tell, ended: Ended) -> None:
    """Run or resume every job on the workers of a Dask scheduler, as many at a time as the workers have threads.

    Args:
        jobs: the runs, all in one results folder.
        address: the scheduler's address, or the path of its scheduler file.
        told: called with a line for the user, or "" after each `POLL_SECONDS`.
        ended: see `Ended`.

    Raises:
        ConfigError: if there is no scheduler, or if a worker has other versions or does not see the folders.
        TrainingError: if the connection to the scheduler is lost.
    """
    killed = optional("distributed", "--cluster", "cluster").KilledWorker
    with _connected(address) as client, _shared(jobs[0].folder.parent.parent) as shared:
        _check_workers(client, shared)
        pending = {_submit(client, job, shared): (job, job.rounds_done()) for job in jobs}
        waiting = False
        while pending:
            for future in [future for future in pending if future.status not in ("pending", "lost")]:
                job, rounds = pending.pop(future)
                try:
                    error = future.result() or _unseen(job)
                except killed as death:
                    if job.rounds_done() > rounds:  # workers of limited time, for example
                        pending[_submit(client, job, shared)] = (job, job.rounds_done())
                        continue
                    error = (
                        f"no round ended before its Dask worker did, {death.allowed_failures + 1} times; see their logs"
                    )
                except Exception as failure:
                    raise _fatal(failure, address) from None
                ended(job, error)
            told("")
            before, waiting = waiting, bool(pending) and not _workers(client, address)
            if waiting and not before:
                told(f"{address}: no Dask worker is connected; the runs wait for one")
            time.sleep(POLL_SECONDS if pending else 0)


def _check_workers(client: Any, shared: Shared) -> None:
    """Raise ConfigError if a worker that is connected now has other packages; without harmofl a task would end it."""
    names = [name for name in shared.versions if name != "python"]
    for worker, about in client.get_versions(packages=names)["workers"].items():
        _check_versions(f"Dask worker {worker}", {name: about["packages"].get(name) for name in names}, shared)


def _workers(client: Any, address: str) -> int:
    """Return the number of connected workers."""
    try:
        return len(client.nthreads())
    except OSError as failure:
        raise _fatal(failure, address) from None


def _fatal(failure: Exception, address: str) -> HarmoFLError:
    """Return the error that ends the command: of a worker that cannot take part, or of a lost connection."""
    if isinstance(failure, HarmoFLError):
        return failure
    reason = " ".join(f"{type(failure).__name__}: {failure}".split())
    if isinstance(failure, CancelledError | OSError):  # the client cancels all runs when the scheduler has gone
        return TrainingError(
            f"{address}: the Dask scheduler must stay connected until all runs have ended, but the connection was lost "
            f"({type(failure).__name__}); repeat the command to continue"
        )
    return ConfigError(
        f"{address}: the Dask scheduler and every worker must be able to import harmofl "
        f"{package_versions()['harmofl']}, got {reason}; install there what is installed here"
    )


def _connected(address: str) -> Any:
    """Return a client of the scheduler.

    Raises:
        ConfigError: if no scheduler answers within `CONNECT_SECONDS`, or a scheduler file is damaged.
    """
    place = address
    if ":" not in address:
        try:
            place = json.loads(Path(address).read_text(encoding="utf-8"))["address"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(
                "--cluster must be the address of a Dask scheduler, such as tcp://host:8786, or a file that `dask "
                f"scheduler --scheduler-file FILE` wrote, got {address!r}, which is no such file"
            ) from None
    distributed = optional("distributed", "--cluster", "cluster")
    for name in ("distributed", "distributed.client"):  # a lost connection is one line of this module
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return distributed.Client(place, timeout=CONNECT_SECONDS)
    except (OSError, ValueError):
        raise ConfigError(
            f"--cluster: a Dask scheduler must answer at {place}, but none did within {CONNECT_SECONDS:g} s; start one "
            "with `dask scheduler`, or give its address, such as tcp://host:8786, or its scheduler file"
        ) from None


@contextmanager
def _shared(results: Path) -> Iterator[Shared]:
    """Yield the requirements of workers; the results folder has a file of a new name within the context."""
    path = results.absolute() / f".cluster-{uuid4().hex}"
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    try:
        yield Shared(package_versions(), path, Path.cwd())
    finally:
        path.unlink(missing_ok=True)


def _submit(client: Any, job: Job, shared: Shared) -> Any:
    tables = job.experiment.model_dump(mode="json")
    for key in ("folder", "cache"):
        if tables["data"][key]:
            tables["data"][key] = str(Path(tables["data"][key]).absolute())
    return client.submit(run_at_worker, tables, job.folder.absolute(), shared, pure=False)


def _unseen(job: Job) -> str:
    """Wait until this machine sees the result of a finished run; return an error if it does not appear."""
    path = RunDir(job.folder).result_path
    return (
        ""
        if _soon(path.exists)
        else f"{path} must be visible here, but is not after {DELAY_SECONDS:g} s; repeat the command"
    )


def _soon(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + DELAY_SECONDS
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def run_at_worker(tables: dict[str, Any], folder: Path, shared: Shared) -> str:
    """Run or resume one experiment in a new process of this Dask worker; return its error message, or "".

    Raises:
        ConfigError: if this worker does not have what `shared` requires.
        Reschedule: if this worker closes, or the task is cancelled; the process is killed then.
    """
    from distributed import Reschedule, get_worker

    worker = get_worker()
    _check_versions(f"Dask worker {worker.address}", package_versions(), shared)
    _check_folders(f"Dask worker {worker.address}", Path(tables["data"]["folder"]), shared)
    key = worker.get_current_task()
    words = [sys.executable, "-m", "harmofl.comparison.cluster", json.dumps([tables, str(folder), os.getpid()])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    current = shared.current if shared.current.is_dir() else None
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=current, env=environment) as process:
        try:
            while (answer := _answer(process)) is None:
                task = worker.state.tasks.get(key)
                if worker.status.name not in ("running", "paused") or task is None or task.state != "executing":
                    raise Reschedule
        finally:
            process.kill()
    return answer


def _check_versions(where: str, found: Mapping[str, str | None], shared: Shared) -> None:
    for name, there in found.items():
        if there != shared.versions[name]:
            raise ConfigError(
                f"{where}: must have {name} {shared.versions[name]}, the version of the machine that compares, because "
                f"results may differ, but has {there or 'none'}; install the same version on all machines"
            )


def _check_folders(where: str, data: Path, shared: Shared) -> None:
    for path, folder, option in ((shared.results, shared.results.parent, "--out"), (data, data, "--data")):
        if not path.exists():
            raise ConfigError(
                f"{where}: must see the folder {folder}, but does not; give {option} on a file system that all "
                "machines share"
            )


def _answer(process: "subprocess.Popen[str]") -> str | None:
    """Return the error message of an ended run, "" if it has none, and None after `POLL_SECONDS` if it goes on."""
    try:
        said, _ = process.communicate(timeout=POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    return (
        str(json.loads(said))
        if said
        else f"its process ended unexpectedly ({process.returncode}); see its Dask worker's log"
    )


def main() -> None:
    """Run or resume the experiment in the arguments of this process; print its error message as JSON."""
    tables, folder, parent = json.loads(sys.argv[1])
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # batch systems send it to all processes; the worker decides
    if os.getppid() != parent:  # the worker died before this process was to end with it
        return
    from harmofl.comparison.workers import run_or_resume  # slow to import

    answers, sys.stdout = sys.stdout, sys.stderr
    _soon(lambda: not Path(folder).exists() or not is_locked(Path(folder)))  # by a worker that has just died
    print(json.dumps(run_or_resume(tables, Path(folder))), file=answers)


if __name__ == "__main__":
    main()
