"""A comparison as a picture: every method's average and worst site, seed by seed."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harmofl.comparison.outcome import Outcome
from harmofl.comparison.table import Comparison
from harmofl.files import storing

AVERAGE, WORST, BASELINE = "#1f5fa8", "#b5532a", "#999999"


def draw_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write comparison.png and comparison.svg into the folder; methods from the best average down."""
    outcomes = sorted(comparison.outcomes, key=lambda outcome: -outcome.average.mean())
    with quiet_drawing():
        return _draw(comparison, outcomes, out)


@contextmanager
def quiet_drawing() -> Iterator[None]:
    """Labels are text and no mathematics; a letter that the font lacks, or a label too long, is no reason to warn."""
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _draw(comparison: Comparison, outcomes: Sequence[Outcome], out: Path) -> list[Path]:
    figure = Figure(figsize=(7.5, 1.2 + 0.3 * len(outcomes)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _paint(axes, comparison, outcomes)
    paths = [out / "comparison.png", out / "comparison.svg"]
    for path in paths:
        with storing(path):
            figure.savefig(path, dpi=130)
    return paths


def shorten(label: str, most: int = 45) -> str:
    """A label that leaves room for the picture."""
    return label if len(label) <= most else f"{label[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def _paint(axes: Axes, comparison: Comparison, outcomes: Sequence[Outcome]) -> None:
    for place, outcome in enumerate(outcomes):
        for scores, colour, marker in ((outcome.worst, WORST, "v"), (outcome.average, AVERAGE, "o")):
            axes.plot(scores, np.full(len(scores), place), marker, color=colour, alpha=0.35, markersize=4)
            axes.plot([scores.mean()], [place], marker, color=colour, markersize=8)
    base = next((o for o in outcomes if o.variant.label == comparison.baseline), None)
    if base is not None:
        axes.axvline(float(base.average.mean()), color=BASELINE, linestyle="--", linewidth=0.8, zorder=0)
    labels = [shorten(o.variant.label) + (" (yardstick)" if o.is_yardstick else "") for o in outcomes]
    axes.set_yticks(range(len(outcomes)), labels)
    axes.set_ylim(len(outcomes) - 0.4, -0.6)
    axes.grid(axis="x", linewidth=0.4)
    axes.set_xlabel(f"test {comparison.metric}")
    axes.set_title(
        f"circle: mean over sites, triangle: worst site; small: single seeds; line: {shorten(comparison.baseline)}",
        loc="left",
        fontsize=8,
    )
