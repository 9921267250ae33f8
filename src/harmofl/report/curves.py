"""Curves of brightness and amplitude for the pages on data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from harmofl.report.colours import SERIES
from harmofl.report.svg import draw_svg

_SIZE = (5.2, 2.8)  # inches
DASHES = ("-", "--", ":", "-.")
MOST_NAMES = 14
"""Largest number of lines with which a chart has a legend; a longer legend would hide the lines."""


@dataclass(frozen=True)
class Line:
    """A curve: its label, the index of its colour in `SERIES`, and its points."""

    label: str
    colour: int
    x: np.ndarray
    y: np.ndarray


def levels(count: int) -> np.ndarray:
    """Return the centers of `count` equal bins of [0, 1]."""
    return (np.arange(count) + 0.5) / count


def paint_brightness(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw the shares of pixels by level, on a square root scale that keeps rare levels visible."""
    _paint(axes, lines)
    axes.set(title="Brightness", xlabel="level, fraction of full scale", ylabel="% of the pixels")
    axes.set_yscale("function", functions=(np.sqrt, np.square))
    axes.set_ylim(bottom=0)


def paint_amplitude(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw amplitudes in decibels over the frequency in cycles per pixel."""
    _paint(axes, lines)
    axes.set(title="Amplitude by frequency", xlabel="cycles per pixel", ylabel="dB")


def brightness_chart(lines: Sequence[Line]) -> Markup:
    """Return the chart of `paint_brightness` for a page."""
    return draw_svg("histogram", "Share of the pixels at each level", _SIZE, lambda axes: paint_brightness(axes, lines))


def amplitude_chart(lines: Sequence[Line]) -> Markup:
    """Return the chart of `paint_amplitude` for a page."""
    return draw_svg("spectrum", "Mean amplitude at each radius", _SIZE, lambda axes: paint_amplitude(axes, lines))


def _paint(axes: Axes, lines: Sequence[Line]) -> None:
    for line in lines:
        style = DASHES[line.colour // len(SERIES) % len(DASHES)]
        axes.plot(line.x, line.y, style, color=SERIES[line.colour % len(SERIES)], label=line.label)
    if len(lines) <= MOST_NAMES:
        axes.legend(frameon=False, fontsize=8)
