"""The smallest experiment that still has everything: momentum, amplitude, perturbation, augmentation."""

import csv
from pathlib import Path
from typing import Any

from toys import assert_same

from harmofl.experiment.callbacks import Callback
from harmofl.experiment.checkpoint import Checkpoint
from harmofl.experiment.config import load_experiment
from harmofl.experiment.round_record import RoundRecord
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.tables import Experiment


def small(data: Path, **changes: Any) -> Experiment:
    settings = {
        "data.folder": str(data),
        "run.threads": 1,
        "network.norm": "batch-stats",
        "network.options": {"features": 2},
        "training.rounds": 3,
        "training.batch_size": 4,
        "training.augment": "flips",
        "training.lr": 0.01,
    }
    return load_experiment(None, settings | {key.replace("__", "."): value for key, value in changes.items()})


def csv_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def same_end(a: Path, b: Path) -> None:
    """Both runs end with the same weights, site states and scores, to the bit."""
    first, second = RunDir(a), RunDir(b)
    one, two = first.load(), second.load()
    assert isinstance(one, Checkpoint)
    assert isinstance(two, Checkpoint)
    assert_same(one.server.weights, two.server.weights)
    assert first.states.keys() == second.states.keys()
    for site, state in first.states.items():
        assert state.keys() == second.states[site].keys()
        for group, arrays in state.items():
            assert_same(arrays, second.states[site][group])
    assert_same(RunDir(a).load_model()[0], RunDir(b).load_model()[0])
    for key in ("test", "val", "chosen_round"):
        assert RunDir(a).result()[key] == RunDir(b).result()[key]
    assert [r["val"] for r in RunDir(a).records()] == [r["val"] for r in RunDir(b).records()]


class StoppedError(Exception):
    """A run was stopped by `StopAfterTwo`."""


class StopAfterTwo(Callback):
    """Stops a run after its second round."""

    def on_round_end(self, record: RoundRecord) -> None:
        if record.round == 2:
            raise StoppedError
