"""Figure of `harmofl data shift`: spectra, distances, brightness and the scores of a small model."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harmofl.analysis.site_shift import Shift
from harmofl.report.colours import SERIES
from harmofl.report.curves import Line, levels, paint_amplitude, paint_brightness
from harmofl.report.svg import saved

_QUESTIONS = {  # score of a `Verdict` -> its label
    "site": "site (low: the sites look alike)",
    "mean_within": "class, at the training site (high: nothing is lost)",
    "mean_elsewhere": "class, at a new site (high: it generalizes)",
}


def radial(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies in cycles per pixel and the mean amplitude of all channels there in decibels."""
    _, H, half = A.shape
    f_y, f_x = np.fft.fftfreq(H)[:, None], np.arange(half)[None] / (2 * (half - 1))
    ring = np.minimum((np.hypot(f_y, f_x) * 2 * 24).astype(int), 35).reshape(-1)
    count = np.bincount(ring, minlength=36)
    sums = np.bincount(ring, (A.mean(axis=0) / math.sqrt(H * 2 * (half - 1))).reshape(-1), minlength=36)
    known = (count > 0) & (sums > 0)
    return (np.arange(36) + 0.5)[known] / 48, 20 * np.log10(sums[known] / count[known])


def amplitude_lines(shift: Shift) -> list[Line]:
    """Return a line of each site's mean amplitude over the radius."""
    return [Line(name, k, *radial(A)) for k, (name, A) in enumerate(shift.spectra.items())]


def brightness_lines(shift: Shift) -> list[Line]:
    """Return a line of each site's shares of pixels over the level, mean over channels."""
    return [
        Line(name, k, levels(values.shape[1]), 100 * values.mean(axis=0))
        for k, (name, values) in enumerate(shift.histograms.items())
    ]


def _paint_matrix(axes: Axes, shift: Shift) -> None:
    axes.imshow(shift.distances, cmap="Blues")
    ticks = range(len(shift.sites))
    axes.set_xticks(ticks, shift.sites, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(ticks, shift.sites, fontsize=7)
    for y, x in np.ndindex(shift.distances.shape):
        colour = "white" if shift.distances[y, x] > 0.6 * shift.distances.max() else "black"
        axes.text(x, y, f"{shift.distances[y, x]:.1f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_title("Distance of the spectra, dB")


def _paint_probe(axes: Axes, shift: Shift) -> None:
    places = np.arange(len(shift.verdicts))[::-1]
    for (score, question), colour, marker in zip(_QUESTIONS.items(), (4, 2, 0), "sod", strict=True):
        values = [getattr(verdict, score) for verdict in shift.verdicts]
        axes.plot(values, places, marker, color=SERIES[colour], label=question)
    axes.set_yticks(places, [verdict.treatment.name for verdict in shift.verdicts], fontsize=8)
    axes.set_xlim(0, 1.02)
    axes.grid(axis="x", linewidth=0.5)
    axes.set_title("Balanced accuracy of a small model")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)


def shift_picture(shift: Shift) -> bytes:
    """Draw spectra, distances, brightness and the small model's scores as one PNG."""
    figure = Figure(figsize=(11, 8.4), dpi=110, layout="constrained")
    (one, two), (three, four) = figure.subplots(2, 2)
    paint_amplitude(one, amplitude_lines(shift))
    _paint_matrix(two, shift)
    paint_brightness(three, brightness_lines(shift))
    _paint_probe(four, shift)
    return saved(figure, "png")
