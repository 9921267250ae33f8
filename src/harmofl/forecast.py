"""What a run will take, from a few measured steps: time, bytes on the wire, memory and disk."""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from harmofl.arrays import num_bytes
from harmofl.checkpoint import Checkpoint
from harmofl.config import Experiment
from harmofl.data.site import Site
from harmofl.evaluation import score
from harmofl.exchange import Broadcast, ClientState, ClientUpdate, ServerState
from harmofl.journal import Journal
from harmofl.local import run_client
from harmofl.processes import processes, that_fit
from harmofl.trial import Trial

T = TypeVar("T")
BUDGET = 6.0
"""Seconds that training steps are measured for, if they are not fewer."""
_FEWEST = 3  # steps beyond the first two


@dataclass(frozen=True)
class Forecast:
    """What a run will take here.

    Args:
        sites: how many there are.
        drawn: how many of them train in a round.
        rounds: how many.
        steps: training steps that were measured.
        start: seconds until the first round.
        training: seconds of a round that its sites train.
        validation: seconds of a validated round that it takes to validate.
        rest: seconds of a round for the average, the checkpoint, and testing if that is wanted in every round.
        test: seconds in the end.
        seconds: in all.
        bytes_up: all sites of a round together send.
        bytes_down: they receive.
        wire: bytes in all rounds.
        memory: bytes of all processes.
        disk: bytes of the run folder.
    """

    sites: int
    drawn: int
    rounds: int
    steps: int
    start: float
    training: float
    validation: float
    rest: float
    test: float
    seconds: float
    bytes_up: int
    bytes_down: int
    wire: int
    memory: int
    disk: int


def forecast(experiment: Experiment, opening: Callable[[str, int, int], None]) -> Forecast:
    """Read the images, take a few steps at the largest site, validate a little, and reckon.

    Args:
        experiment: what is going to be run.
        opening: told the site, how many images are read and how many there are.

    Raises:
        HarmoFLError: what the run itself would be refused for.
    """
    begin = time.perf_counter()
    trial = Trial.prepare(experiment, opening)
    server = trial.start()
    start = time.perf_counter() - begin
    largest = max(trial.training_sites, key=lambda site: len(site.train))
    opened = trial.method.broadcast(server)
    first, state = _train(trial, largest, opened, 2 * trial.training.batch_size)  # also warms up
    server = trial.method.aggregate(server, [first])
    broadcast = trial.method.broadcast(server)
    line, steps = _training_line(trial, largest, broadcast, state)
    update, state = _train(trial, largest, broadcast, trial.training.batch_size, state)
    drawn, count = len(trial.drawn(1)), processes(trial)
    updates = [replace(update, site=site.name) for site in trial.drawn(1)]
    average, server = _timed(lambda: trial.method.aggregate(server, updates))
    keeping, disk, states = _keeping(trial, server, state, drawn)
    once, validation, test = _validation(trial, server)
    costs = [line(len(site.train) * trial.training.epochs) for site in trial.training_sites]
    training = _side_by_side(costs, drawn, trial)
    rounds, table = trial.experiment.training.rounds, trial.experiment
    validations = -(-rounds // table.evaluation.every)
    rest = average + keeping / table.run.checkpoint_every
    tests = test * table.evaluation.test_every_round
    up, down = update.num_bytes(), broadcast.num_bytes()
    return Forecast(
        sites=len(trial.training_sites),
        drawn=drawn,
        rounds=rounds,
        steps=steps,
        start=start + once,
        training=training,
        validation=validation,
        rest=rest + tests,
        test=test,
        seconds=start + once + rounds * (training + rest) + validations * validation + rounds * tests + test,
        bytes_up=trial.method.sends * drawn * up,
        bytes_down=trial.method.sends * drawn * down,
        wire=trial.method.sends
        * (drawn * (first.num_bytes() + opened.num_bytes() + (rounds - 1) * (up + down)) + _late(trial, broadcast)),
        memory=_peak() * (1 + count if count > 1 else 1) + (drawn - 1) * up + states,
        disk=disk,
    )


def _late(trial: Trial, broadcast: Broadcast) -> int:
    """Bytes of the amplitudes that sites send which do not take part in round 1, but later."""
    first, *later = (trial.drawn(k + 1) for k in range(trial.experiment.training.rounds))
    late = {site.name for drawn in later for site in drawn} - {site.name for site in first}
    return len(late) * num_bytes({n: v for n, v in broadcast.weights.items() if n == "amplitude_norm.amplitude"})


def _train(
    trial: Trial, site: Site, broadcast: Broadcast, images: int, state: ClientState | None = None
) -> tuple[ClientUpdate, ClientState]:
    """One epoch of some of a site's images."""
    fewer = replace(site, train=site.train.first(images))
    return run_client(trial.method, fewer, broadcast, state or {}, replace(trial.training, epochs=1))


def _training_line(
    trial: Trial, site: Site, broadcast: Broadcast, state: ClientState
) -> tuple[Callable[[int], float], int]:
    """Seconds of a site's share of a round by its images, and how many steps they were measured on."""
    few = min(2 * trial.training.batch_size, len(site.train))
    low, _ = _timed(lambda: _train(trial, site, broadcast, few, state))
    steps = int(np.clip(BUDGET / max(low / 2, 1e-6), _FEWEST, len(site.train) // trial.training.batch_size - 2))
    if steps < 1:
        return lambda images: low * images / few, 2
    more = few + steps * trial.training.batch_size
    high, _ = _timed(lambda: _train(trial, site, broadcast, more, state))
    slope = max(high - low, 0.0) / (more - few)
    return lambda images: max(low - slope * few, 0.0) + slope * images, 4 + steps


def _side_by_side(costs: Sequence[float], drawn: int, trial: Trial) -> float:
    """Seconds that a round trains: its sites one after the other, or as far as processes can, beside each other."""
    total = float(np.mean(costs)) * drawn
    if (at_once := min(processes(trial), that_fit(trial))) < 2:
        return total
    return max(total / at_once, max(costs) if drawn == len(costs) else 0.0)


def _validation(trial: Trial, server: ServerState) -> tuple[float, float, float]:
    """Seconds of the first time, to validate and to test every site, from a few batches of the largest."""
    sites = trial.federation.sites
    largest = max(sites, key=lambda site: len(site.val))
    size = trial.experiment.evaluation.batch_size
    once, _ = _timed(lambda: _scored(trial, largest, server, size))  # imports what scores need
    one, _ = _timed(lambda: _scored(trial, largest, server, size))
    count = min(len(largest.val), max(size, size * int(BUDGET / 2 / max(one, 1e-6))))
    if count > size:
        more, _ = _timed(lambda: _scored(trial, largest, server, count))
        slope = max(more - one, 0.0) / (count - size)
        fixed = max(one - slope * size, 0.0)
    else:
        slope, fixed = one / min(size, len(largest.val)), 0.0
    every = (*sites, *trial.unseen)
    val = sum(fixed + slope * len(site.val) for site in sites)
    return once - one, val, sum(fixed + slope * len(site.test) for site in every)


def _scored(trial: Trial, site: Site, server: ServerState, images: int) -> Mapping[str, float]:
    fewer = replace(site, val=site.val.first(images))
    return score(trial.predict(fewer, "val", server.weights), fewer, "val")


def _keeping(trial: Trial, server: ServerState, state: ClientState, drawn: int) -> tuple[float, int, int]:
    """Seconds to write a round's checkpoint and, every other time, a best model; bytes on disk and of states held."""
    with tempfile.TemporaryDirectory(prefix="harmofl-") as folder:
        journal = Journal.create(Path(folder) / "run", "", {})
        journal.states.keep(1, {site.name: state for site in trial.drawn(1)})
        writing, _ = _timed(lambda: journal.save(Checkpoint(server)))
        model, _ = _timed(lambda: journal.save_model(1, server.weights, {}))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    one = sum(map(num_bytes, state.values()))
    everywhere = one * len(trial.training_sites)
    return writing + model / 2, size + one * (len(trial.training_sites) - drawn), min(everywhere, journal.states.memory)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    begin = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin, result


def _peak() -> int:
    """Bytes that this process has had in memory at most, its GPU's included."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return used + (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)
