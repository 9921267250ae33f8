"""Estimate of a run's cost from a few measured steps: time, bytes on the wire, memory and disk."""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from harmofl.data.site import Site
from harmofl.evaluation.scoring import score
from harmofl.experiment.backend_choice import processes, that_fit
from harmofl.experiment.checkpoint import Checkpoint
from harmofl.experiment.measured_steps import ENOUGH, MeasuredSteps, line_of, measure_average, measure_steps
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.setup import Setup
from harmofl.experiment.tables import Experiment
from harmofl.experiment.taking_part import takes_changes
from harmofl.federated.downlink import as_change
from harmofl.federated.gathering import bytes_held
from harmofl.federated.messages import Broadcast, ClientState, ServerState
from harmofl.federated.model import AMPLITUDE, of_network
from harmofl.federated.tensors import num_bytes, total_bytes
from harmofl.types import Progress, Tell
from harmofl.utils.timing import Meter

BUDGET = 60.0
"""Default limit of the seconds for measuring."""
BUSY = 0.8
"""Cores count as busy below this ratio of processor time to wall time; it is at least 1 without other work."""


@dataclass(frozen=True)
class Forecast:
    """The estimated cost of a run on this machine.

    Args:
        sites: number of sites that train.
        drawn: number of sites that train in a round.
        rounds: number of rounds.
        steps: number of training steps that were measured.
        validated: number of images whose validation was measured; if 0, validation counts as slow as training.
        short: True if the budget allowed fewer measurements than usual.
        share: processor time by wall time of the measurements, at most 1; 1 on GPUs and below 2 measured seconds.
        start: seconds until the first round.
        training: seconds of training per round.
        validation: seconds of validation per validated round.
        rest: seconds per round for the average, the checkpoint, and the test if every round is tested.
        test: seconds of the final test.
        seconds: total seconds.
        idle: largest total seconds if no computation takes longer than its processor time, as on idle cores.
        idle_round: seconds of a validated round under the same condition.
        bytes_up: bytes that all sites of a round send together.
        bytes_down: bytes that all sites of a round receive together.
        wire: bytes on the wire in all rounds.
        memory: bytes of memory of all processes.
        held: bytes of the updates that are in memory together until a round ends, part of `memory`.
        disk: bytes of the run folder.
    """

    sites: int
    drawn: int
    rounds: int
    steps: int
    validated: int
    short: bool
    share: float
    start: float
    training: float
    validation: float
    rest: float
    test: float
    seconds: float
    idle: float
    idle_round: float
    bytes_up: int
    bytes_down: int
    wire: int
    memory: int
    held: int
    disk: int

    @property
    def a_round(self) -> float:
        """The seconds of a validated round."""
        return self.training + self.validation + self.rest

    @property
    def busy(self) -> bool:
        """True if other work used the cores during the measurement."""
        return self.share < BUSY


def estimate_cost(
    experiment: Experiment, progress: Progress, budget: float = BUDGET, told: Tell | None = None
) -> Forecast:
    """Return a run's cost, estimated from reading the images and a few training steps and validation batches.

    Args:
        experiment: the experiment to run.
        progress: called with the site that is read, its number of images read and in total; then with the measurement,
            the seconds of the budget that are spent, and the budget.
        budget: seconds for measuring. A measurement begins only if it fits into the remaining seconds, except the
            first step, one average and one checkpoint. Reading and the first compilation do not count.
        told: called with one line each about how the folder was read, and with warnings.

    Raises:
        HarmoFLError: for the errors that would prevent the run itself.
    """
    begin = time.perf_counter()
    setup = Setup.prepare(experiment, lambda site, done, total: progress(f"reading {site}", done, total), None, told)
    server = setup.start()
    start = time.perf_counter() - begin
    meter = Meter(budget, setup.training.device.type == "cpu", progress)
    steps = measure_steps(setup, server, meter)
    drawn, count = len(setup.drawn(1)), processes(setup)
    average, server = measure_average(setup, steps, meter)
    meter.tell("a checkpoint")
    keeping, disk, states = _keeping(setup, server, steps.state, drawn)
    once, validation, test, validated = _validation(setup, server, meter, steps.line(steps.batch) / steps.batch)
    costs = [steps.line(len(site.train) * setup.training.epochs) for site in setup.training_sites]
    training = _side_by_side(costs, drawn, setup)
    rounds, table = setup.experiment.training.rounds, setup.experiment
    validations = -(-rounds // table.evaluation.every)
    tests = test * table.evaluation.test_every_round
    rest = average + keeping / table.run.checkpoint_every + tests
    seconds = start + once + rounds * (training + rest) + validations * validation + test
    held = (drawn - 1) * bytes_held(setup.method, steps.update, table.run.diagnostics)
    return Forecast(
        sites=len(setup.training_sites),
        drawn=drawn,
        rounds=rounds,
        steps=steps.count,
        validated=validated,
        short=meter.short,
        share=meter.share,
        start=start + float(once[0]),
        training=float(training[0]),
        validation=float(validation[0]),
        rest=float(rest[0]),
        test=float(test[0]),
        seconds=float(seconds[0]),
        idle=float(seconds.min()),
        idle_round=float((training + validation + rest).min()),
        **_traffic(setup, steps, drawn),
        memory=_peak() * (1 + count if count > 1 else 1) + held + states,
        held=held,
        disk=disk,
    )


def _traffic(setup: Setup, steps: MeasuredSteps, drawn: int) -> dict[str, int]:
    """Return `bytes_up`, `bytes_down` and `wire` of the `Forecast`; nothing is sent but in a federation."""
    if setup.experiment.arrangement != "federated":
        return dict.fromkeys(("bytes_up", "bytes_down", "wire"), 0)
    up, down = steps.update.num_bytes(), _down(setup, steps)
    first = steps.first.num_bytes() + steps.opened.num_bytes()
    later = round(drawn * (setup.experiment.training.rounds - 1) * (up + down))
    wire = drawn * first + later + _late(setup, steps.broadcast)
    return {"bytes_up": drawn * up, "bytes_down": round(drawn * down), "wire": wire}


def _down(setup: Setup, steps: MeasuredSteps) -> float:
    """Return the bytes that a site receives in a round after the first, on average over these rounds.

    A change has the amplitude and its flags after round 1, and the amplitude after a round with new sites.
    """
    whole, change = steps.broadcast, as_change(steps.broadcast, steps.server)
    found, known = list[int](), set[str]()
    for number in range(2, setup.experiment.training.rounds + 1):
        before = {site.name for site in setup.drawn(number - 1)}
        learnt = list(change.weights) if number == 2 else [] if before <= known else [AMPLITUDE]
        names = {*of_network(change.weights), *learnt} & change.weights.keys()
        changed = replace(change, weights={name: change.weights[name] for name in names})
        taken = takes_changes(setup.experiment, len(setup.training_sites), number)
        found.append((changed if taken else whole).num_bytes())
        known |= before
    return float(np.mean(found or [whole.num_bytes()]))


def _late(setup: Setup, broadcast: Broadcast) -> int:
    """Return the bytes of the amplitudes from sites that first take part after round 1."""
    first, *later = (setup.drawn(k + 1) for k in range(setup.experiment.training.rounds))
    late = {site.name for drawn in later for site in drawn} - {site.name for site in first}
    return len(late) * num_bytes({n: v for n, v in broadcast.weights.items() if n == AMPLITUDE})


def _side_by_side(costs: Sequence[np.ndarray], drawn: int, setup: Setup) -> np.ndarray:
    """Return the seconds that sites take, one after the other or in parallel processes."""
    total: np.ndarray = np.mean(costs, axis=0) * drawn
    if (at_once := min(processes(setup), that_fit(setup))) < 2:
        return total
    longest = np.max(costs, axis=0) if drawn == len(costs) else np.zeros(2)
    return np.maximum(total / at_once, longest)


def _validation(
    setup: Setup, server: ServerState, meter: Meter, step: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return pairs of seconds of the warm-up, of validation and of the test, and the number of measured images.

    A few batches of the largest site are validated; the training time of an image, which is longer, bounds how many
    fit into the budget.
    """
    sites = setup.federation.sites
    largest = max(sites, key=lambda site: len(site.val))
    every = (*sites, *setup.unseen)
    once, line, count = np.zeros(2), line_of(1, step), 0
    size = meter.fitting(min(setup.experiment.evaluation.batch_size, len(largest.val)), float(step[0]))
    if size >= min(2, len(largest.val)):
        once, line, count = _validating(setup, server, largest, size, meter, size * step)
    val = _side_by_side([line(len(site.val)) for site in sites], len(sites), setup)
    return once, val, np.sum([line(len(site.test)) for site in every], axis=0), count


def _validating(
    setup: Setup, server: ServerState, site: Site, size: int, meter: Meter, most: np.ndarray
) -> tuple[np.ndarray, Callable[[int], np.ndarray], int]:
    """Return the warm-up seconds, the line of seconds by images, at most `most` for `size`, and the images measured."""
    first, _ = meter.time("validation", lambda: _scored(setup, site, server, size))  # imports what scores need
    one = np.minimum(first, most)
    if meter.fitting(1, float(one[0])):
        one, _ = meter.time("validation", lambda: _scored(setup, site, server, size))
        meter.judge(one)
    once = np.full(2, max(float(first[0] - one[0]), 0.0))
    batches = min(int(ENOUGH / 2 / max(float(one[0]), 1e-6)), -(-len(site.val) // size))
    count = min(len(site.val), size * meter.fitting(batches, float(one[0])))
    if count <= size:
        return once, line_of(size, one), size
    more, _ = meter.time("validation", lambda: _scored(setup, site, server, count))
    meter.judge(more)
    return once, line_of(size, one, count, more), count


def _scored(setup: Setup, site: Site, server: ServerState, images: int) -> Mapping[str, float]:
    fewer = replace(site, val=site.val.first(images))
    return score(setup.predict(fewer, "val", server.weights), fewer, "val")


def _keeping(setup: Setup, server: ServerState, state: ClientState, drawn: int) -> tuple[float, int, int]:
    """Return the seconds to write a checkpoint and, every other time, a best model; bytes on disk, and of states."""
    with tempfile.TemporaryDirectory(prefix="harmofl-") as folder:
        run_dir = RunDir.create(Path(folder) / "run", "", {})
        run_dir.states.keep(1, {site.name: state for site in setup.drawn(1)})
        begin = time.perf_counter()
        run_dir.save(Checkpoint(server))
        writing = time.perf_counter() - begin
        run_dir.save_model(1, server.weights, {})
        model = time.perf_counter() - begin - writing
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    one = total_bytes(state)
    everywhere = one * len(setup.training_sites)
    return writing + model / 2, size + one * (len(setup.training_sites) - drawn), min(everywhere, run_dir.states.memory)


def _peak() -> int:
    """Return the peak memory of this process in bytes, including GPU memory."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return used + (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)
