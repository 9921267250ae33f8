"""Read samples.npz: a few images of every site with what was to be predicted and what was."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harmofl.errors import RunError

Array = NDArray[Any]


@dataclass(frozen=True)
class SiteSamples:
    """K sample images of one site.

    Args:
        images: (K, C, H, W) in [0, 1].
        targets: (K, H, W) label maps or (K,) class indices.
        predictions: as `targets`.
        cases: (K,) what each image is called.
        normalized: (K, C, H, W) after amplitude normalization, where the method has it.
    """

    images: Array
    targets: Array
    predictions: Array
    cases: Array
    normalized: Array | None = None


def read_samples(path: Path) -> dict[str, SiteSamples]:
    """Read the samples of every site; none when the file is absent.

    Raises:
        RunError: the file is damaged or lacks an array.
    """
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            sites = dict.fromkeys(name.rpartition("/")[0] for name in arrays.files)
            return {site: _site(arrays, site) for site in sites}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path} cannot be read ({reason}); delete it to report without images") from error


def _site(arrays: Mapping[str, Array], site: str) -> SiteSamples:
    images, targets, predictions, cases = (
        arrays[f"{site}/{name}"] for name in ("images", "targets", "predictions", "cases")
    )
    normalized = arrays.get(f"{site}/normalized")
    expected = (len(images), *images.shape[2:]) if targets.ndim == 3 else (len(images),)
    fits = images.ndim == 4 and targets.shape == predictions.shape == expected and len(cases) == len(images)
    if not fits or (normalized is not None and normalized.shape != images.shape):
        raise ValueError(f"the arrays of site {site} do not fit one another")
    return SiteSamples(images, targets, predictions, cases, normalized)
