"""What a run will take, against what it took. Time is compared in benchmarks/, not here, where clocks are made up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import small

from harmofl import run
from harmofl.cli.run_commands import plan
from harmofl.errors import DataError
from harmofl.experiment import cost_estimate as forecast_module
from harmofl.experiment import measured_steps
from harmofl.experiment.cost_estimate import estimate_cost
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.tables import Experiment
from harmofl.ingest.synthetic.federation import write_federation
from harmofl.report.scores import duration
from harmofl.utils.timing import Meter


def quiet(site: str, done: int, total: int) -> None:
    """Nobody is told."""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method__name": "scaffold"},
        {"method__name": "local"},
        {"training__participation": 0.5, "training__epochs": 2, "evaluation__every": 2},
        {"method__name": "pooled"},
        {"training__updates": "int8", "training__downlink": "int8"},
        {"training__downlink": "bfloat16", "training__participation": 0.5, "evaluation__every": 3},
    ],
    ids=["harmofl", "scaffold", "local", "drawn", "pooled", "small", "small and drawn"],
)
def test_bytes_are_those_of_the_run(federation: Path, tmp_path: Path, changes: dict) -> None:
    experiment = small(federation, **changes)
    found = estimate_cost(experiment, quiet)
    run(experiment, tmp_path / "run")
    run_dir = RunDir(tmp_path / "run")
    records = run_dir.records()
    assert found.rounds == len(records)
    assert found.drawn == len(records[0]["train_loss"])
    assert found.wire == sum(record["bytes_up"] + record["bytes_down"] for record in records)
    last = records[-1]
    assert found.bytes_up == last["bytes_up"]
    assert found.bytes_down == pytest.approx(np.mean([record["bytes_down"] for record in records[1:]]), abs=1)
    assert min(found.start, found.training, found.validation, found.rest, found.test) > 0
    assert found.seconds > found.rounds * found.training


def test_disk_is_that_of_the_run(federation: Path, tmp_path: Path) -> None:
    experiment = small(federation, network__options={"features": 8})
    found = estimate_cost(experiment, quiet)
    run(experiment, tmp_path / "run")
    size = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.suffix == ".safetensors")
    assert found.disk == pytest.approx(size, rel=0.1)


def test_what_the_run_would_be_refused_for(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        estimate_cost(small(tmp_path / "nowhere"), quiet)


class Clock:
    """In the place of `time`: nothing takes time but training steps and validated images, so many seconds each.

    Args:
        step: wall seconds of a training step.
        image: wall seconds of a validated image.
        share: processor time of a second.
        compiling: wall seconds of the first step, beside its own.
    """

    def __init__(self, step: float, image: float, share: float = 1.0, compiling: float = 0.0) -> None:
        self.step, self.image, self.share, self.compiling = step, image, share, compiling
        self.wall = self.processor = 0.0

    def perf_counter(self) -> float:
        return self.wall

    def process_time(self) -> float:
        return self.processor

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.processor += seconds * self.share


def put(clock: Clock, patch: pytest.MonkeyPatch) -> None:
    """The forecast's clock from here on."""
    train, score = measured_steps.run_client, forecast_module._scored

    def trained(method: Any, site: Any, broadcast: Any, state: Any, training: Any) -> Any:
        clock.passes(clock.step * max(len(site.train) // training.batch_size, 1) + clock.compiling)
        clock.compiling = 0.0
        return train(method, site, broadcast, state, training)

    def scored(setup: Any, site: Any, server: Any, images: int) -> Any:
        clock.passes(clock.image * min(images, len(site.val)))
        return score(setup, site, server, images)

    patch.setattr(forecast_module, "time", clock)
    patch.setattr("harmofl.utils.timing.time", clock)
    patch.setattr(measured_steps, "run_client", trained)
    patch.setattr(forecast_module, "_scored", scored)


SETTINGS = {"training.batch_size": 2, "network.options.features": 2, "run.threads": 1, "training.rounds": 100}


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites with 49 training images, 24.5 steps of 2."""
    folder = tmp_path_factory.mktemp("larger") / "tissue"
    write_federation(folder, sites=2, images=40, size=32)
    return folder


def asked(folder: Path, **changes: Any) -> Experiment:
    return small(folder, **SETTINGS, **changes)


def planned(folder: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, str]:
    """The lines of `harmofl plan`, by their first word."""
    plan(data=folder, setting=[f"{key}={value}" for key, value in SETTINGS.items()], **options)
    return {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}


@pytest.mark.parametrize("share", [1.0, 0.9, 3.6], ids=["one thread", "a little less", "four threads"])
def test_idle_cores_are_not_called_busy(
    share: float, larger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(Clock(1.0, 0.1, share), monkeypatch)
    lines = planned(larger, capsys)
    assert list(lines) == ["2", "time", "wire", "memory", "disk"]
    assert lines["2"].endswith("measured on 8 steps")


def test_busy_cores_are_told_with_both_figures(
    larger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps and validated images take ten times as long as the processor works for them.

    A step takes 4 s, so a round of 24.5 steps 98 s.
    """
    put(Clock(4.0, 0.5, 0.1), monkeypatch)
    found = estimate_cost(asked(larger), quiet)
    assert found.busy
    assert found.share == pytest.approx(0.1)
    assert found.training == pytest.approx(98)
    assert found.idle == pytest.approx(0.1 * found.seconds)
    assert found.idle_round == pytest.approx(0.1 * found.a_round)
    lines = planned(larger, capsys)
    assert list(lines) == ["2", "time", "busy", "wire", "memory", "disk"]
    assert "processor time is 10% of the time" in lines["busy"]
    for seconds in (found.seconds, found.idle):
        assert f"{duration(seconds)} in all" in lines["busy"]


def test_short_measurements_do_not_tell_busy_cores(larger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(Clock(0.05, 0.001, 0.1), monkeypatch)
    assert not estimate_cost(asked(larger), quiet).busy


def test_gpus_are_waited_for_and_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1.0, 1.0, 0.1)
    monkeypatch.setattr("harmofl.utils.timing.time", clock)
    for computes, share in ((True, 0.1), (False, 1.0)):
        meter = Meter(60, computes, quiet)
        meter.judge(meter.time("a step", lambda: clock.passes(30))[0])
        assert meter.share == pytest.approx(share)


@pytest.mark.parametrize(
    ("step", "spent", "steps", "validated"),
    [
        (100.0, 100.0, "1 step", "no validation"),  # the first one, which is not predicted
        (45.0, 45.0, "1 step", "no validation"),  # a second one would not fit
        (30.0, 60.0, "1 step", "no validation"),  # a second one fits, beside the first that warms up
        (12.0, 60.0, "1 step", "6 validated images"),  # 24, then half of what is left is no 24 for two; 36
        (8.0, 56.0, "3 steps", "6 validated images"),  # 16, 16 for two more, 24 for images, which are not repeated
    ],
)
def test_the_budget_holds_and_what_the_figures_rest_on_is_said(
    step: float,
    spent: float,
    steps: str,
    validated: str,
    larger: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock(step, step / 2)
    put(clock, monkeypatch)
    lines = planned(larger, capsys)
    assert clock.wall == pytest.approx(spent)
    assert lines["2"].endswith(f"measured on {steps}")
    assert "60 s allowed" in lines["short"]
    assert steps in lines["short"]
    assert validated in lines["short"]


@pytest.mark.parametrize(
    ("step", "budget"),
    [(0.01, 1), (0.3, 1), (0.3, 7), (1.0, 7), (1.0, 20), (5.0, 1), (5.0, 20), (17.0, 60), (17.0, 300)],
)
def test_any_budget_holds(step: float, budget: int, larger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(step, step / 5)
    put(clock, monkeypatch)
    found = estimate_cost(asked(larger), quiet, budget)
    assert clock.wall <= max(step, budget) + 1e-6
    assert found.training == pytest.approx(24.5 * step)
    assert found.short or found.validated


def test_compiling_is_not_of_the_budget(larger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmofl.experiment.model_build._check_compiler", lambda: None)
    monkeypatch.setattr("torch.nn.Module.compile", lambda *words, **options: None)
    put(Clock(1.0, 0.1, compiling=100.0), monkeypatch)
    found = estimate_cost(asked(larger, training__compile=True), quiet)
    assert not found.short
    assert found.training == pytest.approx(24.5)


def test_what_is_done_is_told(larger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(Clock(4.0, 0.5), monkeypatch)
    told: list[tuple[str, int, int]] = []
    estimate_cost(asked(larger), lambda *words: told.append(words))
    reading = [words for words in told if words[0].startswith("reading site-")]
    assert told[: len(reading)] == reading
    assert reading[-1][1] == reading[-1][2]
    measuring = [label.removeprefix("measuring ") for label, _, _ in told[len(reading) :]]
    assert list(dict.fromkeys(measuring)) == [
        *("the first step", "an average", "a step", "4 steps", "a checkpoint", "validation"),
    ]
    assert [done for _, done, _ in told[len(reading) :]][:5] == [0, 4, 4, 8, 24]
    assert {total for _, _, total in told[len(reading) :]} == {60}
