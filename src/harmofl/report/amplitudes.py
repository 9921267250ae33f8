"""Amplitude spectra as images: the spectrum of every site, and the common spectrum that all images get."""

from collections.abc import Sequence

import numpy as np

from harmofl.experiment.finished_run import Run
from harmofl.experiment.report_array_readers import Array
from harmofl.report.png_images import data_uri, to_bytes

_SIDE = 160  # pixels
COMMON = "common to all"


def maps(run: Run) -> list[tuple[str, str]]:
    """Return name and image of each spectrum, the common one last, on one scale, zero frequency in the middle."""
    whole = {site or COMMON: whole_spectrum(A) for site, A in run.amplitudes.items()}
    if not whole:
        return []
    whole[COMMON] = whole.pop(COMMON)
    return list(zip(whole, on_one_scale(list(whole.values()), _SIDE), strict=True))


def on_one_scale(spectra: Sequence[Array], side: int) -> list[str]:
    """Return an image of each spectrum, all on one scale, whose longer side is about `side` pixels."""
    low, high = np.quantile(np.concatenate([values.reshape(-1) for values in spectra]), (0.01, 0.999))
    shown = (np.clip((values - low) / max(high - low, 1e-9), 0, 1) for values in spectra)
    return [data_uri(to_bytes(values[None], side)) for values in shown]


def whole_spectrum(half: Array, width: int | None = None) -> Array:
    """Return the log of a half spectrum (H, W//2 + 1), mirrored to (H, W), with the zero frequency in the middle.

    The number of columns does not tell an odd `width` from an even one; without it an even one is assumed, so that of
    an odd width one column is missing.
    """
    width = width or 2 * (half.shape[1] - 1)
    mirrored = np.roll(half[::-1, 1 : (width + 1) // 2][:, ::-1], 1, axis=0)
    found: Array = np.fft.fftshift(np.log10(np.maximum(np.concatenate([half, mirrored], axis=1), 1e-6)))
    return found
