"""Measurement of a few training steps of the largest site, and of the average of their updates."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from harmofl.data.site import Site
from harmofl.experiment.setup import Setup
from harmofl.federated.client import run_client
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate, ServerState
from harmofl.utils.timing import Meter

ENOUGH = 6.0
"""Target seconds of measured training steps, if a site has enough steps and the budget allows it."""
_FEWEST = 3  # fewest measured steps beyond the first two


@dataclass(frozen=True)
class MeasuredSteps:
    """The measurements of the training steps; for pairs of seconds see `harmofl.utils.timing.Meter`."""

    opened: Broadcast  # of round 1, as are the next three
    first: ClientUpdate
    server: ServerState
    average: np.ndarray  # pair of seconds
    broadcast: Broadcast  # of a later round, as are the next two
    update: ClientUpdate
    state: ClientState
    batch: int  # images in a step
    line: Callable[[int], np.ndarray]  # images of a site -> pair of seconds of its training in a round
    count: int  # measured steps


def measure_steps(setup: Setup, server: ServerState, meter: Meter) -> MeasuredSteps:
    """Measure one step of round 1, which also warms up, then one of round 2 and more, as the budget allows."""
    largest = max(setup.training_sites, key=lambda site: len(site.train))
    batch, opened = min(setup.training.batch_size, len(largest.train)), setup.method.broadcast(server)
    warm, (first, state) = meter.time("the first step", lambda: _train(setup, largest, opened, batch))
    average, server = meter.time("an average", lambda: setup.aggregate(server, [first]))
    broadcast, guess = setup.method.broadcast(server), float(warm[0])
    told = partial(MeasuredSteps, opened, first, server, average, broadcast)
    if setup.experiment.training.compile:  # the first step's time is mostly compilation
        meter.restart()
        guess = 0.0
    if not meter.fitting(1, guess):
        meter.judge(warm)
        return told(first, state, batch, line_of(batch, warm), 1)
    low, (update, kept) = meter.time("a step", lambda: _train(setup, largest, broadcast, batch, state))
    meter.judge(low)
    if (more := _more_steps(len(largest.train) // batch - 1, float(low[0]), meter)) < 1:
        return told(update, kept, batch, line_of(batch, low), 1)
    images = (1 + more) * batch
    high, _ = meter.time(f"{1 + more} steps", lambda: _train(setup, largest, broadcast, images, state))
    meter.judge(high)
    return told(update, kept, batch, line_of(batch, low, images, high), 2 + more)


def _more_steps(there: int, each: float, meter: Meter) -> int:
    """Return the number of further steps to measure in half of the remaining budget; the rest is for validation."""
    wanted = min(max(_FEWEST, int(ENOUGH / max(each, 1e-6))), there)
    return meter.fitting(1 + wanted, 2 * each) - 1 if wanted > 0 else 0


def line_of(few: int, low: np.ndarray, more: int = 0, high: np.ndarray | None = None) -> Callable[[int], np.ndarray]:
    """Return the line of seconds by number of images, through two measurements, or through one and zero."""
    if high is None:
        return lambda images: low * images / few
    slope = np.maximum(high - low, 0.0) / (more - few)
    fixed = np.maximum(low - slope * few, 0.0)
    return lambda images: fixed + slope * images


def measure_average(setup: Setup, steps: MeasuredSteps, meter: Meter) -> tuple[np.ndarray, ServerState]:
    """Return the pair of seconds of a round's aggregation, and the server's state after it."""
    updates = [replace(steps.update, site=site.name) for site in setup.drawn(1)]
    count = max(meter.fitting(len(updates), float(steps.average[0])), 1)
    average, server = meter.time("an average", lambda: setup.aggregate(steps.server, updates[:count]))
    return average * len(updates) / count, server


def _train(
    setup: Setup, site: Site, broadcast: Broadcast, images: int, state: ClientState | None = None
) -> tuple[ClientUpdate, ClientState]:
    """Train one epoch on the first images of a site."""
    fewer = replace(site, train=site.train.first(images))
    return run_client(setup.method, fewer, broadcast, state or {}, replace(setup.training, epochs=1))
