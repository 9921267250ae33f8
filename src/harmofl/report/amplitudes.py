"""Amplitude spectra as pictures: of every site, and the one that all images are given."""

import numpy as np

from harmofl.experiment.finished_run import Run
from harmofl.experiment.run_samples import Array
from harmofl.report.png_images import data_uri, to_bytes

_SIDE = 160  # pixels
COMMON = "given to all"


def maps(run: Run) -> list[tuple[str, str]]:
    """The name and the picture of each spectrum, the common one last, on one scale; zero frequency in the middle."""
    whole = {site or COMMON: whole_spectrum(A) for site, A in run.amplitudes.items()}
    if not whole:
        return []
    whole[COMMON] = whole.pop(COMMON)
    low, high = np.quantile(np.concatenate([values.reshape(-1) for values in whole.values()]), (0.01, 0.999))
    shown = {name: np.clip((values - low) / max(high - low, 1e-9), 0, 1) for name, values in whole.items()}
    return [(name, data_uri(to_bytes(values[None], _SIDE))) for name, values in shown.items()]


def whole_spectrum(half: Array) -> Array:
    """The log of a half spectrum (H, W//2 + 1), mirrored to (H, W) and with the zero frequency in the middle.

    Of an odd width one column is missing in the half; which of the two it is, the number of columns does not say, and
    an even width is taken.
    """
    mirrored = np.roll(half[::-1, 1:-1][:, ::-1], 1, axis=0)
    found: Array = np.fft.fftshift(np.log10(np.maximum(np.concatenate([half, mirrored], axis=1), 1e-6)))
    return found
