"""Distances between sites in mean amplitude spectrum and in brightness."""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.stats import wasserstein_distance

from harmofl.analysis.site_shift.normalizations import ImageArrays
from harmofl.spectral.amplitude import amplitude
from harmofl.utils.seeding import rng

BINS = 64
HALVES = 10
"""Number of random halvings of a site for `half_distance`."""


def mean_amplitude(images: ImageArrays) -> np.ndarray:
    """Return (C, H, W//2 + 1): the mean of the images' half amplitude spectra."""
    mean: np.ndarray = amplitude(torch.from_numpy(images)).mean(dim=0).numpy()
    return mean


def distance(A: np.ndarray, B: np.ndarray) -> float:
    """Return the root mean square of 20 log10(A / B) over all frequencies and channels."""
    ratio = 20 * np.log10(np.maximum(A, 1e-6) / np.maximum(B, 1e-6))
    return float(np.sqrt(np.mean(ratio**2)))


def distances(spectra: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the (S, S) distances between the sites' mean amplitude spectra, in decibels."""
    return np.array([[distance(A, B) for B in spectra.values()] for A in spectra.values()])


def half_distance(images: ImageArrays, cases: np.ndarray, seed: int) -> float:
    """Return the median distance in decibels between random halves of a site's cases, the effect of sampling alone."""
    names = np.unique(cases)
    if len(names) < 2:
        return float("nan")
    A = amplitude(torch.from_numpy(images)).numpy()
    found = []
    for turn in range(HALVES):
        order = rng(seed, "halves", turn).permutation(names)
        first = np.isin(cases, order[: len(names) // 2])
        found.append(distance(A[first].mean(axis=0), A[~first].mean(axis=0)))
    return float(np.median(found))


def histogram(images: ImageArrays) -> np.ndarray:
    """Return (C, 64): the share of a site's pixels in each of 64 equal bins of [0, 1]."""
    counts = [np.histogram(images[:, c], bins=BINS, range=(0, 1))[0] for c in range(images.shape[1])]
    shares: np.ndarray = np.array(counts) / images[:, 0].size
    return shares


def brightness_distances(histograms: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the (S, S) earth mover's distances, mean over channels, in units of the full scale."""
    levels = (np.arange(BINS) + 0.5) / BINS

    def between(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([wasserstein_distance(levels, levels, x, y) for x, y in zip(a, b, strict=True)]))

    return np.array([[between(a, b) for b in histograms.values()] for a in histograms.values()])
