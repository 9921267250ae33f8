"""Choice of the backend of an experiment: the sequential loop, or a number of processes."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from harmofl.backends.auto import Auto
from harmofl.backends.processes import Equipment, Workers
from harmofl.backends.runner import Runner
from harmofl.backends.sequential import Sequential
from harmofl.experiment.setup import Setup
from harmofl.experiment.tables import Experiment, Section
from harmofl.utils.hardware import processes_that_fit


@contextmanager
def shared_cache(experiment: Experiment) -> Iterator[Path | None]:
    """Yield a temporary folder in which processes share decoded images, or None if none is needed."""
    table = experiment.run
    too_few = table.device == "cpu" and (not table.threads or processes_that_fit("cpu", table.threads) < 2)
    if table.workers == 1 or (table.workers == 0 and too_few) or experiment.data.cache:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="harmofl-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def runtime(setup: Setup, cache: Path | None) -> Iterator[Runner]:
    """Yield the runner of rounds, as the experiment sets."""
    count = processes(setup)
    if count < 2:
        yield Sequential(setup.score_of)
        return
    equip = partial(_equipped, setup.experiment.model_dump(mode="json"), cache)
    with Workers(equip, count) if setup.experiment.run.workers else Auto(equip, count, setup.score_of) as runner:
        yield runner


def processes(setup: Setup) -> int:
    """Return the number of processes that train a round's sites: `run.workers`, or as many as fit."""
    return min(setup.experiment.run.workers or that_fit(setup), len(setup.drawn(1)))


def that_fit(setup: Setup) -> int:
    """Return the number of processes that fit: one per GPU, or one per `run.threads` CPU cores."""
    return processes_that_fit(str(setup.training.device), setup.experiment.run.threads)


def _equipped(tables: Section, cache: Path | None, number: int) -> Equipment:
    """Prepare the experiment in a new process, on a GPU of its own if there are several."""
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # each process compiles by itself
    if tables["run"]["device"] in ("auto", "cuda") and torch.cuda.is_available():
        tables["run"]["device"] = f"cuda:{number % torch.cuda.device_count()}"
    setup = Setup.prepare(Experiment.model_validate(tables), lambda site, done, total: None, cache)
    return Equipment(setup.method, setup.training, {site.name: site for site in setup.training_sites}, setup.score_of)
