"""Readers of the samples, probabilities and amplitudes of a run, see `harmofl.experiment.report_arrays`."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from harmofl.errors import RunError
from harmofl.utils.grouping import grouped

Array = NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True)
class SiteSamples:
    """K sample images of one site.

    Args:
        images: (K, C, H, W) in [0, 1].
        targets: (K, H, W) label maps or (K,) class indices.
        predictions: same shape as `targets`.
        cases: (K,) names of the images.
        normalized: (K, C, H, W) images after amplitude normalization, if the method has it.
        ranks: (K,) "best", "median", "worst", or "" for images that are the same in every run; None in older runs.
        scores: (K,) score of the case, or probability of the image's true class; None in older runs.
    """

    images: Array
    targets: Array
    predictions: Array
    cases: Array
    normalized: Array | None = None
    ranks: Array | None = None
    scores: Array | None = None

    def chosen(self, ranked: bool) -> list[int]:
        """Return the indices to show: samples with a rank, worst first, or samples that other runs have as well."""
        if self.ranks is None:
            return list(range(len(self.images)))
        found = [index for index, rank in enumerate(self.ranks) if bool(rank) == ranked]
        return found or list(range(len(self.images)))


class SavedSamples(Mapping[str, SiteSamples]):
    """The samples of a run by site, read from its file when they are asked for.

    Raises:
        RunError: the file is damaged or lacks an array; also where a site is looked up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: tuple[str, SiteSamples] | None = None
        with _arrays(path) as arrays:
            self._names = grouped(arrays, _site_of)

    def __getitem__(self, site: str) -> SiteSamples:
        names = self._names[site]
        if self._last is None or self._last[0] != site:
            with _arrays(self._path) as arrays:
                self._last = site, _site({name: arrays[name] for name in names}, site)
        return self._last[1]

    def __contains__(self, site: object) -> bool:
        return site in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_samples(path: Path) -> Mapping[str, SiteSamples]:
    """Return the samples by site; empty if the file is absent.

    Raises:
        RunError: the file is damaged or lacks an array.
    """
    return SavedSamples(path) if path.exists() else {}


def read_probabilities(path: Path) -> dict[str, tuple[Array, Array]]:
    """Read (N, K) class probabilities and (N,) true classes of test images, by site; empty if the file is absent.

    Raises:
        RunError: the file is damaged or lacks an array.
    """
    return _read(path, lambda arrays: {site: _answers(arrays, site) for site in grouped(arrays, _site_of)})


def read_amplitudes(path: Path) -> dict[str, Array]:
    """Read (H, W//2 + 1) mean amplitude spectra by site, the common one as ""; empty if the file is absent.

    Raises:
        RunError: the file is damaged.
    """
    return _read(
        path, lambda arrays: {name.removeprefix("sites/") if "/" in name else "": a for name, a in arrays.items()}
    )


def _read(path: Path, parse: Callable[[dict[str, Array]], dict[str, T]]) -> dict[str, T]:
    if not path.exists():
        return {}
    with _arrays(path) as arrays:
        return parse(dict(arrays))


@contextmanager
def _arrays(path: Path) -> Iterator[Mapping[str, Array]]:
    """Yield the arrays of an open file; raise RunError for what damage makes numpy raise within the context."""
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise ValueError("it holds a single array")
        with found as arrays:
            yield arrays
    except (OSError, ValueError, TypeError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path} cannot be read ({reason}); restore it, or delete it to go on without it") from error


def _site_of(name: str) -> str:
    return name.rpartition("/")[0]


def _answers(arrays: Mapping[str, Array], site: str) -> tuple[Array, Array]:
    probabilities, targets = arrays[f"{site}/probabilities"], arrays[f"{site}/targets"]
    if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1]:
        raise ValueError(f"the arrays of site {site} do not fit one another")
    return probabilities, targets


def _site(arrays: Mapping[str, Array], site: str) -> SiteSamples:
    images, targets, predictions, cases = (
        arrays[f"{site}/{name}"] for name in ("images", "targets", "predictions", "cases")
    )
    normalized = arrays.get(f"{site}/normalized")
    expected = (len(images), *images.shape[2:]) if targets.ndim == 3 else (len(images),)
    ranks, scores = arrays.get(f"{site}/ranks"), arrays.get(f"{site}/scores")
    fits = images.ndim == 4 and targets.shape == predictions.shape == expected and len(cases) == len(images)
    pairs = ((normalized, images), (ranks, cases), (scores, cases))
    if not fits or any(array is not None and array.shape != other.shape for array, other in pairs):
        raise ValueError(f"the arrays of site {site} do not fit one another")
    return SiteSamples(images, targets, predictions, cases, normalized, ranks, scores)
