"""Loss surfaces of several runs on one scale, with a cache of the results on the disk."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harmofl.analysis.landscape.plane import KINDS, PlaneKind
from harmofl.analysis.landscape.solutions import Marks, Opened, Surfaces
from harmofl.errors import ConfigError
from harmofl.experiment.run_dir import RunDir
from harmofl.types import Progress
from harmofl.utils.array_files import save_arrays
from harmofl.utils.atomic_files import make_folder

T = TypeVar("T", Marks, Surfaces)
VERSION = 1
"""Version of the cache files; increase it when the numbers change."""


@dataclass(frozen=True)
class Asked:
    """Options of the surfaces, the same for each run.

    Args:
        kind: kind of the plane, see `harmofl.analysis.landscape.plane.plane`.
        resolution: points along either axis, odd, so that the middle one is the global solution.
        span: distance from the middle to the edge, in units of the axes; None for 1 with "filters", and for 1.4 times
            the furthest solution of all runs with "solutions".
        images: largest number of images of a site.
        seed: seed of directions and images.
    """

    kind: PlaneKind = "solutions"
    resolution: int = 15
    span: float | None = None
    images: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"--plane must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.resolution < 5 or self.resolution % 2 == 0:
            raise ConfigError(f"--resolution must be an odd number of at least 5, got {self.resolution}")
        if self.span is not None and not 0 < self.span < float("inf"):
            raise ConfigError(f"--span must be a finite number above 0, got {self.span}")


@dataclass(frozen=True)
class Landscape:
    """One run's surfaces and the marks in them; `axis` (R,) is the same for all runs."""

    label: str
    axis: np.ndarray
    marks: Marks
    surfaces: Surfaces


def compute(
    runs: Mapping[str, Path], asked: Asked, cache: Path, workers: int, device: str, progress: Progress
) -> list[Landscape]:
    """Compute the landscapes of runs, one a label; results in `cache` are not computed again.

    Raises:
        HarmoFLError: see `harmofl.analysis.landscape.solutions.Opened`.
        StorageError: if the cache cannot be written.
    """
    make_folder(cache)
    work = [_Work(folder, asked, cache, device, progress) for folder in runs.values()]
    marks = [one.marks() for one in work]
    span = _span(asked, marks)
    axis = np.linspace(-span, span, asked.resolution)
    found = []
    for label, one, own in zip(runs, work, marks, strict=True):
        found.append(Landscape(label, axis, own, one.surfaces(label, axis, workers)))
        one.close()
    return found


def _span(asked: Asked, marks: Sequence[Marks]) -> float:
    if asked.span is not None or asked.kind == "filters":
        return asked.span or 1.0
    furthest = max((float(np.abs(own.places).max()) for own in marks if own.places.size), default=0.0)
    return float(f"{1.4 * furthest:.2g}") or 1.0


class _Work:
    """Computation for one run; its images are read only if a result is not in the cache."""

    def __init__(self, folder: Path, asked: Asked, cache: Path, device: str, progress: Progress) -> None:
        self._folder, self._asked, self._cache, self._device = folder, asked, cache, device
        self._progress = progress
        self._opened: Opened | None = None
        self._key = {"run": _digest(folder), "kind": asked.kind, "seed": asked.seed, "version": VERSION}

    def marks(self) -> Marks:
        return self._held(Marks, self._key, lambda: self._open().marks(self._asked.kind, self._asked.seed))

    def surfaces(self, label: str, axis: np.ndarray, workers: int) -> Surfaces:
        asked = self._asked

        def computed() -> Surfaces:
            opened = self._open()
            total = len(opened.setup.federation.sites) * (len(axis) ** 2 + 1)
            points = count(1)
            done = lambda: self._progress(label, next(points), total)  # noqa: E731
            return opened.surfaces(asked.kind, asked.seed, axis, asked.images, workers, done)

        key = {**self._key, "images": asked.images, "span": float(axis[-1]), "resolution": len(axis)}
        return self._held(Surfaces, key, computed)

    def close(self) -> None:
        self._opened = None

    def _open(self) -> Opened:
        self._opened = self._opened or Opened(self._folder, self._device, self._progress)
        return self._opened

    def _held(self, kind: type[T], key: Mapping[str, Any], computed: Callable[[], T]) -> T:
        """Return a result of this kind from the cache, and compute it first if it is not there."""
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
        path = self._cache / f"{kind.__name__.lower()}-{name}.npz"
        if not path.exists():
            save_arrays(path, {name: np.asarray(value) for name, value in vars(computed()).items()})
        with np.load(path, allow_pickle=False) as file:
            names, *arrays = (file[field] for field in kind.__dataclass_fields__)
        return kind(tuple(names.tolist()), *arrays)


def _digest(folder: Path) -> str:
    """Return the SHA-256 digest of the files in a run folder that its solutions depend on."""
    run_dir, total = RunDir.open(folder), hashlib.sha256()
    state = folder / "checkpoint"
    for path in sorted([run_dir.config_path, folder / "model" / "model.json", *state.rglob("*.safetensors")]):
        if path.is_file():
            total.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
