"""Normalizations that are compared on a federation's images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from harmofl.methods import make_method
from harmofl.spectral.image_norm import ImageNorm

BANDS = (0.0, 0.01, 0.1, 1.0)
"""Bands: the mean level alone (HarmoFL's released code), two low-frequency squares, the whole amplitude (the paper)."""
COLORS = (
    ("reinhard", "reinhard", "each image gets the common mean and deviation of its colors"),
    ("macenko", "macenko", "each image gets the common stain colors and strengths"),
)
OTHERS = (
    ("level and contrast", "profile:radial_bins=1", "each image gets the common mean level and contrast"),
    ("profile, 32 rings", "profile", "each image gets the common radial profile"),
    ("half the site's profile", "profile:per=site:strength=0.5", "one filter per site, halfway to the common profile"),
    ("z-score", "zscore", "each image gets mean 0 and deviation 1"),
    ("histogram", "histogram", "each image gets the common percentiles of intensity"),
)
"""Name, part and meaning of each treatment; those of `COLORS` need color images."""

_BATCH = 8  # images that are normalized at once, so that they stay in the cache
ImageArrays = np.ndarray  # (N, C, H, W) float32 in [0, 1]


@dataclass(frozen=True)
class Treatment:
    """One normalization.

    Args:
        name: name for tables, such as "band 0.1".
        meaning: description in plain words.
        part: the part of a method that does it, such as "amplitude:band=0.1".
        apply: (a site's name, its images) -> its images, normalized.
    """

    name: str
    meaning: str
    part: str
    apply: Callable[[str, ImageArrays], ImageArrays]

    @property
    def setting(self) -> str:
        """The options of `harmofl run` that train with this normalization."""
        return f"--method harmofl+{self.part}"


def standard_treatments(sites: Mapping[str, ImageArrays], bands: Sequence[float] = BANDS) -> tuple[Treatment, ...]:
    """Return the treatments: none, amplitude normalization in each band, and the other normalizers.

    The common statistic is the mean over sites of each site's mean, as HarmoFL averages it (Eq 3 over all images, and
    equal weights for the sites).

    Args:
        sites: the images from which the common statistics are computed.
        bands: bands of `with_amplitude`.
    """
    colors = COLORS if all(images.shape[1] == 3 for images in sites.values()) else ()
    listed = (*((f"band {band:g}", f"amplitude:band={band:g}", _meaning(band)) for band in bands), *OTHERS, *colors)
    return (
        Treatment("none", "the images as they are", "identity", lambda _, images: images),
        *(Treatment(name, meaning, part, _learnt(part, sites)) for name, part, meaning in listed),
    )


def _meaning(band: float) -> str:
    if band == 0:
        return "the mean level only, as in HarmoFL's released code"
    if band == 1:
        return "the whole amplitude, as in the HarmoFL paper"
    return f"the amplitude of frequencies up to {band:g} of the image's side"


def _learnt(part: str, sites: Mapping[str, ImageArrays]) -> Callable[[str, ImageArrays], ImageArrays]:
    """Return the function of a normalizer that has learnt its common statistic from the sites."""
    layer = make_method(f"fedavg+{part}", {}).normalize.layer()
    assert layer is not None
    own = {name: layer.of(torch.from_numpy(images)) for name, images in sites.items()}
    layer.amplitude = torch.stack(list(own.values())).mean(dim=0)
    layer.count.fill_(1)
    layer.eval()
    return lambda name, images: _applied(layer, own[name], images)


@torch.no_grad()
def _applied(layer: ImageNorm, own: torch.Tensor, images: ImageArrays) -> ImageArrays:
    if layer.per == "site":
        layer.own = own
    parts = [layer(part) for part in torch.split(torch.from_numpy(images), _BATCH)]
    normalized: ImageArrays = torch.cat(parts).numpy()
    return normalized
