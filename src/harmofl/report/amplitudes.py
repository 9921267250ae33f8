"""Amplitude spectra as images: the spectrum of every site, and the common spectrum that all images get."""

import numpy as np

from harmofl.experiment.finished_run import Run
from harmofl.experiment.run_samples import Array
from harmofl.report.png_images import data_uri, to_bytes

_SIDE = 160  # pixels
COMMON = "given to all"


def maps(run: Run) -> list[tuple[str, str]]:
    """Return name and image of each spectrum, the common one last, on one scale, zero frequency in the middle."""
    whole = {site or COMMON: whole_spectrum(A) for site, A in run.amplitudes.items()}
    if not whole:
        return []
    whole[COMMON] = whole.pop(COMMON)
    low, high = np.quantile(np.concatenate([values.reshape(-1) for values in whole.values()]), (0.01, 0.999))
    shown = {name: np.clip((values - low) / max(high - low, 1e-9), 0, 1) for name, values in whole.items()}
    return [(name, data_uri(to_bytes(values[None], _SIDE))) for name, values in shown.items()]


def whole_spectrum(half: Array) -> Array:
    """Return the log of a half spectrum (H, W//2 + 1), mirrored to (H, W), with the zero frequency in the middle.

    The number of columns does not tell an odd width from an even one; an even width is assumed, so for an odd width
    one column is missing.
    """
    mirrored = np.roll(half[::-1, 1:-1][:, ::-1], 1, axis=0)
    found: Array = np.fft.fftshift(np.log10(np.maximum(np.concatenate([half, mirrored], axis=1), 1e-6)))
    return found
