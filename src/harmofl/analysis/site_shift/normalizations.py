"""Amplitude normalizations that are compared on a federation's images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harmofl.spectral.amplitude import amplitude, with_amplitude
from harmofl.spectral.radial_profile import profile, with_profile

RINGS = 32
BANDS = (0.0, 0.01, 0.1, 1.0)
"""Bands: the mean level alone (HarmoFL's released code), two low-frequency squares, the whole amplitude (the paper)."""

ImageArrays = np.ndarray  # (N, C, H, W) float32 in [0, 1]


@dataclass(frozen=True)
class Treatment:
    """One normalization.

    Args:
        name: name for tables, such as "band 0.1".
        meaning: description in plain words.
        setting: the options of `harmofl run` that train with this normalization.
        apply: (a site's name, its images) -> its images, normalized.
    """

    name: str
    meaning: str
    setting: str
    apply: Callable[[str, ImageArrays], ImageArrays]


def standard_treatments(sites: Mapping[str, ImageArrays], bands: Sequence[float] = BANDS) -> tuple[Treatment, ...]:
    """Return the treatments: none, amplitude normalization in each band, and two by radial profile.

    The common amplitude is the mean over sites of each site's mean, as HarmoFL averages it (Eq 3 over all images, and
    equal weights for the sites).

    Args:
        sites: the images from which the common amplitude and profile are computed.
        bands: bands of `with_amplitude`.
    """
    A = _mean_over_sites(sites, amplitude)
    R = _mean_over_sites(sites, lambda x: profile(x, RINGS))
    own = {name: profile(torch.from_numpy(images), RINGS).mean(dim=0) for name, images in sites.items()}

    def in_band(band: float) -> Callable[[str, ImageArrays], ImageArrays]:
        return lambda _, images: _tensors(images, lambda x: with_amplitude(x, A, band))

    def by_site(name: str, images: ImageArrays) -> ImageArrays:
        return _tensors(images, lambda x: with_profile(x, R, own[name], strength=0.5))

    return (
        Treatment("none", "the images as they are", "--method harmofl+identity", lambda _, images: images),
        *(Treatment(f"band {band:g}", _meaning(band), f"--set method.band={band:g}", in_band(band)) for band in bands),
        Treatment(
            f"profile, {RINGS} rings",
            "each image gets the common radial profile",
            f"--method harmofl+profile --set method.radial_bins={RINGS}",
            lambda _, images: _tensors(images, lambda x: with_profile(x, R)),
        ),
        Treatment(
            "half the site's profile",
            "one filter per site, halfway to the common radial profile",
            "--method harmofl-profile",
            by_site,
        ),
    )


def _meaning(band: float) -> str:
    if band == 0:
        return "the mean level only, as in HarmoFL's released code"
    if band == 1:
        return "the whole amplitude, as in the HarmoFL paper"
    return f"the amplitude of frequencies up to {band:g} of the image's side"


def _mean_over_sites(sites: Mapping[str, ImageArrays], statistic: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([statistic(torch.from_numpy(images)).mean(dim=0) for images in sites.values()]).mean(dim=0)


def _tensors(images: ImageArrays, normalize: Callable[[Tensor], Tensor]) -> ImageArrays:
    normalized: ImageArrays = normalize(torch.from_numpy(images)).numpy()
    return normalized
