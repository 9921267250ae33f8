"""What a run will take, against what it took. Time is compared in benchmarks/, not here."""

from pathlib import Path

import pytest
from experiments import small

from harmofl import run
from harmofl.errors import DataError
from harmofl.forecast import forecast
from harmofl.journal import Journal


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
    ],
    ids=["harmofl", "scaffold", "local", "drawn", "pooled"],
)
def test_bytes_are_those_of_the_run(federation: Path, tmp_path: Path, changes: dict) -> None:
    experiment = small(federation, **changes)
    found = forecast(experiment, quiet)
    run(experiment, tmp_path / "run")
    journal = Journal(tmp_path / "run")
    records = journal.records()
    assert found.rounds == len(records)
    assert found.drawn == len(records[0]["train_loss"])
    assert found.wire == sum(record["bytes_up"] + record["bytes_down"] for record in records)
    last = records[-1]
    assert (found.bytes_up, found.bytes_down) == (last["bytes_up"], last["bytes_down"])
    assert min(found.start, found.training, found.validation, found.rest, found.test) > 0
    assert found.seconds > found.rounds * found.training


def test_disk_is_that_of_the_run(federation: Path, tmp_path: Path) -> None:
    experiment = small(federation, network__options={"features": 8})
    found = forecast(experiment, quiet)
    run(experiment, tmp_path / "run")
    size = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.suffix == ".safetensors")
    assert found.disk == pytest.approx(size, rel=0.1)


def test_what_the_run_would_be_refused_for(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        forecast(small(tmp_path / "nowhere"), quiet)
