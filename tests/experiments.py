"""The smallest experiment that still has everything: momentum, amplitude, perturbation, augmentation."""

from pathlib import Path
from typing import Any

from harmofl.config import Experiment, load_experiment


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
