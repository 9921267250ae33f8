"""Small federations of NIfTI volumes: a bright ball in a body of grey tissue, in air."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from harmofl.experiment.config import load_experiment
from harmofl.experiment.tables import Experiment

SPACING = (1.0, 1.0, 2.0)
"""Millimetres along the stored axes: to the right, to the front, upwards."""


def save_volume(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def scene(seed: int, shape: tuple[int, int, int] = (26, 24, 12), gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return voxels float32 and labels uint8, axes to the right, to the front, upwards."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1) * np.array(SPACING)
    middle = (np.array(shape) - 1) / 2 * np.array(SPACING)
    body = (np.abs(grid - middle) < middle - 2).all(axis=-1)
    ball = np.linalg.norm(grid - middle - random.uniform(-3, 3, 3) - (2, 0, -1), axis=-1) < 5
    voxels = 100 * body + 100 * ball + 5 * random.standard_normal(shape)
    return (gain * np.maximum(voxels, 0)).astype(np.float32), ball.astype(np.uint8)


def write_volumes(root: Path, sites: int = 2, volumes: int = 5) -> Path:
    """Write sites of different intensities, whose volumes have two shapes."""
    for s in range(sites):
        for k in range(volumes):
            voxels, labels = scene(10 * s + k, (26, 24, 12 + 2 * (k % 2)), gain=1.0 + s)
            for part, array in (("images", voxels), ("masks", labels)):
                save_volume(root / f"site-{s}" / part / f"v{k}.nii.gz", array, np.diag([*SPACING, 1.0]))
    return root


def of_volumes(folder: Path, **changes: Any) -> Experiment:
    """Return a small experiment on whole volumes."""
    settings = {
        "data.folder": str(folder),
        "data.mode": "volumes",
        "data.patch_size": [16, 16, 16],
        "data.patches_per_volume": 2,
        "run.threads": 1,
        "method.name": "fedavg",
        "network.options": {"features": [4, 4, 4, 4, 4, 4]},
        "training.rounds": 2,
        "training.augment": "flips",
        "training.lr": 0.01,
    }
    return load_experiment(None, settings | {key.replace("__", "."): value for key, value in changes.items()})
