"""How the sites of a federation differ: a page, a picture and the numbers as JSON, for `harmofl data shift`."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harmofl.files import storing, strict_json, write_atomic
from harmofl.report.curves import CHART, Line, levels, paint_amplitude, paint_brightness
from harmofl.report.data_page import Grid
from harmofl.report.pixels import data_uri, to_bytes
from harmofl.report.scores import DASH
from harmofl.report.svg import SERIES, draw
from harmofl.report.templates import template_of
from harmofl.shift import Shift
from harmofl.shift.measuring import Verdict, known_mean

CLEAR = 0.02
"""A normalization is worth trying if it gains more than this on average, and something every time it was asked."""
_SIDE = 132  # pixels
_QUESTIONS = {
    "site": "the site (low: sites look alike)",
    "within": "the class, at the site it learnt from (high: nothing lost)",
    "elsewhere": "the class, at a site it never saw (high: it carries over)",
}


@dataclass(frozen=True)
class Gallery:
    """Pictures of the page: a title, what each column is, and rows of a name and images."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def write_shift(shift: Shift, folder: Path) -> None:
    """Write shift.html, shift.png and shift.json.

    Raises:
        StorageError: if they cannot be written.
    """
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "shift.json", strict_json(numbers(shift), indent=1).encode())
    write_atomic(folder / "shift.png", picture(shift))
    write_atomic(folder / "shift.html", render(shift).encode())


def mean(values: Mapping[str, float]) -> float:
    """Over the sites that have a value."""
    return known_mean(values.values())


def outcome(shift: Shift) -> list[str]:
    """What it comes to, in a few sentences."""
    none, *others = shift.verdicts
    said = [
        _apart(shift),
        f"A small model tells the site from an image with a balanced accuracy of {none.site:.2f} "
        f"(chance {1 / len(shift.sites):.2f}).",
    ]
    best = max(others, key=lambda verdict: known_mean(_gains(verdict, none)))
    gains = _gains(best, none)
    told = (
        f"{_signed(mean(best.elsewhere) - mean(none.elsewhere))} at sites it never saw, "
        f"{_signed(mean(best.within) - mean(none.within))} at its own"
    )
    if known_mean(gains) > CLEAR and min(gains) > 0:
        said.append(f"Worth trying: {best.treatment.name} ({told}), `harmofl run {best.treatment.setting}`.")
    else:
        said.append(f"No normalization clearly helps the small model; the best is {best.treatment.name} ({told}).")
    harmful = [verdict.treatment.name for verdict in others if mean(verdict.within) < mean(none.within) - 2 * CLEAR]
    if harmful:
        said.append(f"What tells the classes apart at a site is partly lost under {', '.join(harmful)}.")
    return said


def _apart(shift: Shift) -> str:
    apart = float(np.median(shift.distances[np.triu_indices(len(shift.sites), 1)]))
    chance = known_mean(shift.halves.values())
    said = f"Mean amplitude spectra of two sites differ by {apart:.1f} dB"
    if chance > 0:
        said += f", {apart / chance:.0f} times as much as two halves of one site ({chance:.1f} dB)"
    return f"{said}."


def _gains(verdict: Verdict, none: Verdict) -> list[float]:
    """By how much the class is told better than without, at new sites and at own ones together, each time."""
    return [
        mean(a.elsewhere) - mean(b.elsewhere) + _or_zero(mean(a.within) - mean(b.within))
        for a, b in zip(verdict.repeats, none.repeats, strict=True)
    ]


def _or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _signed(value: float) -> str:
    return f"{value:+.2f}" if math.isfinite(value) else DASH


def numbers(shift: Shift) -> dict[str, object]:
    """Everything measured but the pictures, for JSON."""
    return {
        "name": shift.name,
        "task": shift.task,
        "sites": list(shift.sites),
        "images": shift.images,
        "size": list(shift.size),
        "spectral_distance_db": shift.distances.round(3).tolist(),
        "half_distance_db": shift.halves,
        "brightness_distance": shift.brightness.round(4).tolist(),
        "histograms": {name: values.round(6).tolist() for name, values in shift.histograms.items()},
        "radial_amplitude_db": {name: _radial(A)[1].round(3).tolist() for name, A in shift.spectra.items()},
        "probe": [
            {
                "treatment": verdict.treatment.name,
                "run_with": verdict.treatment.setting,
                "site_accuracy": verdict.site,
                "class_accuracy_within": verdict.within,
                "class_accuracy_elsewhere": verdict.elsewhere,
                "gains_of_each_repeat": _gains(verdict, shift.verdicts[0]),
            }
            for verdict in shift.verdicts
        ],
        "outcome": outcome(shift),
    }


def render(shift: Shift) -> str:
    """The page as text."""
    return template_of("data.html").render(
        title=f"Shift between the sites of {shift.name}",
        kind=f"{shift.task}, {len(shift.sites)} sites, at {shift.size[0]} x {shift.size[1]} pixels",
        outcome=" ".join(outcome(shift)),
        grids=[_probe(shift), _distances(shift), _brightness(shift)],
        charts=_charts(shift),
        galleries=[_spectra(shift), _examples(shift)],
        note=(
            "Training images only. The small model is a linear one on random filters: its scores compare the rows of "
            "its table and are not what a trained network will score. This page shows images; it is not meant to leave "
            "the place where they may be seen."
        ),
    )


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else DASH


def _probe(shift: Shift) -> Grid:
    rows = []
    for verdict in shift.verdicts:
        per_site = [f"{_number(verdict.within[site])} / {_number(verdict.elsewhere[site])}" for site in shift.sites]
        means = (_number(verdict.site), _number(mean(verdict.within)), _number(mean(verdict.elsewhere)))
        rows.append((f"{verdict.treatment.name}: {verdict.treatment.meaning}", *means, *per_site))
    columns = ("normalization", "tells the site", "the class, own site", "the class, new site", *shift.sites)
    unit = "a pixel" if shift.task == "segmentation" else "an image"
    repeats = len(shift.verdicts[0].repeats)
    title = f"What a small model tells from {unit}: balanced accuracy, mean of {repeats} (at each site: own / new)"
    return Grid(title, columns, tuple(rows))


def _distances(shift: Shift) -> Grid:
    rows = [
        (site, *(f"{value:.1f}" for value in row), _number(shift.halves[site]), str(shift.images[site]))
        for site, row in zip(shift.sites, shift.distances, strict=True)
    ]
    columns = ("", *shift.sites, "two halves of it", "images")
    return Grid("Distance of the mean amplitude spectra, dB", columns, tuple(rows))


def _brightness(shift: Shift) -> Grid:
    rows = [(site, *(f"{value:.3f}" for value in row)) for site, row in zip(shift.sites, shift.brightness, strict=True)]
    return Grid("Distance of the brightness histograms (earth mover's, of full scale)", ("", *shift.sites), tuple(rows))


def _radial(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in cycles per pixel, and the mean level there in decibels, channels together."""
    _, H, half = A.shape
    f_y, f_x = np.fft.fftfreq(H)[:, None], np.arange(half)[None] / (2 * (half - 1))
    ring = np.minimum((np.hypot(f_y, f_x) * 2 * 24).astype(int), 35).reshape(-1)
    count = np.bincount(ring, minlength=36)
    sums = np.bincount(ring, (A.mean(axis=0) / math.sqrt(H * 2 * (half - 1))).reshape(-1), minlength=36)
    known = (count > 0) & (sums > 0)
    return (np.arange(36) + 0.5)[known] / 48, 20 * np.log10(sums[known] / count[known])


def _amplitude_lines(shift: Shift) -> list[Line]:
    return [Line(name, k, *_radial(A)) for k, (name, A) in enumerate(shift.spectra.items())]


def _brightness_lines(shift: Shift) -> list[Line]:
    return [
        Line(name, k, levels(values.shape[1]), 100 * values.mean(axis=0))
        for k, (name, values) in enumerate(shift.histograms.items())
    ]


def _charts(shift: Shift) -> list[Markup]:
    amplitude, brightness = _amplitude_lines(shift), _brightness_lines(shift)
    return [
        draw("spectrum", "Mean amplitude at each radius", CHART, lambda axes: paint_amplitude(axes, amplitude)),
        draw("histogram", "Share of pixels at each level", CHART, lambda axes: paint_brightness(axes, brightness)),
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
    scores = {
        "site": [verdict.site for verdict in shift.verdicts],
        "within": [mean(verdict.within) for verdict in shift.verdicts],
        "elsewhere": [mean(verdict.elsewhere) for verdict in shift.verdicts],
    }
    for (question, values), colour, marker in zip(
        scores.items(), (SERIES[4], SERIES[2], SERIES[0]), "sod", strict=True
    ):
        axes.plot(values, places, marker, color=colour, label=_QUESTIONS[question])
    axes.set_yticks(places, [verdict.treatment.name for verdict in shift.verdicts], fontsize=8)
    axes.set_xlim(0, 1.02)
    axes.grid(axis="x", linewidth=0.5)
    axes.set_title("Balanced accuracy of a small model")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)


def picture(shift: Shift) -> bytes:
    """Spectra, distances, brightness and the small model's scores as one PNG."""
    figure = Figure(figsize=(11, 8.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    (one, two), (three, four) = figure.subplots(2, 2)
    paint_amplitude(one, _amplitude_lines(shift))
    _paint_matrix(two, shift)
    paint_brightness(three, _brightness_lines(shift))
    _paint_probe(four, shift)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _spectra(shift: Shift) -> Gallery:
    """The mean spectra as pictures, zero frequency in the middle, all on one scale."""
    whole = {name: _whole(A.mean(axis=0), shift.size[1]) for name, A in shift.spectra.items()}
    levels = np.concatenate([values.reshape(-1) for values in whole.values()])
    low, high = np.quantile(levels, (0.01, 0.999))
    shown = [(np.clip((values - low) / max(high - low, 1e-9), 0, 1))[None] for values in whole.values()]
    row = tuple(data_uri(to_bytes(values, _SIDE)) for values in shown)
    note = "Lighter is more; the middle is the lowest frequency. All on one scale."
    return Gallery("Mean amplitude spectra", note, tuple(whole), (("", row),))


def _whole(half: np.ndarray, width: int) -> np.ndarray:
    """The log of a half spectrum, mirrored to the whole one, zero frequency in the middle."""
    mirrored = np.roll(half[::-1, 1 : (width + 1) // 2][:, ::-1], 1, axis=0)
    return np.fft.fftshift(np.log10(np.maximum(np.concatenate([half, mirrored], axis=1), 1e-6)))


def _examples(shift: Shift) -> Gallery:
    names: Sequence[str] = [verdict.treatment.name for verdict in shift.verdicts]
    rows = []
    for site, parts in shift.examples.items():
        for k in range(len(parts[0])):
            rows.append((site if k == 0 else "", tuple(data_uri(to_bytes(part[k], _SIDE)) for part in parts)))
    note = "Some training images of every site, as they are and under each normalization (cut to the range of values)."
    return Gallery("Images before and after", note, tuple(names), tuple(rows))
