"""Common functions of the synthetic tissues: smooth noise, soft edges, and stratified site parameters."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import fourier_gaussian

from harmofl.utils.seeding import rng

FloatImage: TypeAlias = NDArray[np.float64]
Bytes: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]
Indices: TypeAlias = NDArray[np.intp]

STRATA = 4


def spread(seed: int, site: int, count: int) -> FloatImage:
    """Draw `count` numbers in [-1, 1] for a site, stratified so that the sites always differ.

    They are a Latin hypercube over every four consecutive sites (McKay, Beckman and Conover 1979): each of the four
    lies in a different quarter of the range of every parameter.
    """
    block, place = divmod(site, STRATA)
    quarters = np.tile(np.arange(STRATA), (count, 1))
    strata = rng(seed, "style", "strata", block).permuted(quarters, axis=1)[:, place]
    jitter = rng(seed, "style", "jitter", site).random(count)
    return np.asarray(2.0 * (strata + jitter) / STRATA - 1.0)


def smooth_noise(size: int, sigma: float | tuple[float, float], generator: np.random.Generator) -> FloatImage:
    """Draw a Gaussian random field with mean 0 and standard deviation 1 over many draws.

    Args:
        size: side in pixels.
        sigma: standard deviation of the Gaussian that smooths white noise, in pixels; one number or (rows, columns).
        generator: the random number generator.

    Returns:
        (size, size), cropped from a larger periodic field so that opposite edges are unrelated.
    """
    side = next_fast_len(size + int(np.ceil(4.0 * np.max(sigma))), real=True)
    waves = fourier_gaussian(rfft2(generator.standard_normal((side, side))), sigma, n=side)
    field = irfft2(waves, s=(side, side))
    unit: FloatImage = field / field.std()
    return unit[:size, :size]


def soft_step(distance: FloatImage, width: float) -> FloatImage:
    """Return 0 outside, 1 inside and a linear ramp of `width` pixels around signed distance 0."""
    return np.asarray(np.clip(distance / width + 0.5, 0.0, 1.0))


def as_uint8(image: FloatImage) -> Bytes:
    """Convert [0, 1] to 0..255, rounded; values outside are clipped."""
    return np.rint(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8)
