"""One setting at several values: the paper's Figure 5 as data and as a picture."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harmofl.comparison.outcome import Outcome
from harmofl.comparison.study import site_names
from harmofl.comparison.variants import Variant, check_may_differ, split_outside_brackets
from harmofl.config import Experiment, parse_value
from harmofl.errors import ConfigError
from harmofl.files import storing, write_atomic

SITES = "sites"
"""The setting "how many sites take part"; it is no key of an experiment."""


def parse_sweep(text: str) -> tuple[str, dict[str, Any]]:
    """Read `method.alpha=1,0.5,0.05`: the key, and the values by how they are written.

    Raises:
        ConfigError: if it has another form or fewer than two values.
    """
    key, equals, values = text.partition("=")
    parsed: dict[str, Any] = {}
    for value in split_outside_brackets(values):
        if (one := parse_value(value)) not in parsed.values():
            parsed[value] = one
    if not equals or not key.strip() or len(parsed) < 2:
        raise ConfigError(f"--over takes key=value,value,..., such as method.alpha=1,0.5,0.05, got {text!r}")
    return key.strip(), parsed


def swept(base: Experiment, variants: Sequence[Variant], key: str, values: Mapping[str, Any]) -> list[list[Variant]]:
    """For every variant, one at each value; a number of sites takes the first so many by name.

    Raises:
        ConfigError: if a number of sites is out of range.
    """
    changes = [_change(base, key, value) for value in values.values()]
    return [
        [
            Variant(f"{variant.label} {key}={text}", variant.method, {**variant.changes, **change})
            for text, change in zip(values, changes, strict=True)
        ]
        for variant in variants
    ]


def _change(base: Experiment, key: str, value: Any) -> dict[str, Any]:
    if key != SITES:
        check_may_differ(key, "--over", also=("network.", "data.size"))
        return {key: value}
    names = site_names(base)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= len(names):
        raise ConfigError(f"--over sites takes numbers from 1 to {len(names)}, got {value!r}")
    return {"data.sites": tuple(names[:value])}


Lines = Mapping[str, Sequence[Outcome | None]]
"""Method -> an outcome a value, None where no run came to its end."""


def write_sweep(lines: Lines, key: str, values: Mapping[str, Any], metric: str, out: Path) -> list[Path]:
    """Write sweep.csv, and the picture as sweep.png and sweep.svg, into the folder.

    Args:
        lines: the outcomes.
        key: what was swept.
        values: the values by how they are written.
        metric: the score.
        out: the folder.
    """
    write_atomic(out / "sweep.csv", _table(lines, key, values, metric).encode())
    return [out / "sweep.csv", *_draw(lines, key, values, metric, out)]


def _table(lines: Lines, key: str, values: Mapping[str, Any], metric: str) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", key, "seed", f"validation {metric}", f"test {metric}", f"worst site {metric}"])
    for label, outcomes in lines.items():
        for text, outcome in zip(values, outcomes, strict=True):
            if outcome is not None:
                columns = (outcome.seeds, outcome.val, outcome.average, outcome.worst)
                writer.writerows([label, text, *row] for row in zip(*columns, strict=True))
    return file.getvalue()


def _draw(lines: Lines, key: str, values: Mapping[str, Any], metric: str, out: Path) -> list[Path]:
    """A line a method: mean over the seeds with their range, validation dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from harmofl.comparison.picture import quiet_drawing, shorten

    places, logarithmic = _places(values)
    order = np.argsort(places, kind="stable")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, (label, outcomes) in enumerate(lines.items()):
        known = [(places[i], outcome) for i in order if (outcome := outcomes[i]) is not None]
        x = [place for place, _ in known]
        colour = f"C{index}"
        for name, style, shade in (("average", "-o", 0.2), ("val", "--", 0.0)):
            scores = [getattr(outcome, name) for _, outcome in known]
            axes.plot(x, [np.mean(s) for s in scores], style, color=colour, label=shorten(label) if shade else None)
            low, high = [s.min() for s in scores], [s.max() for s in scores]
            axes.fill_between(x, low, high, color=colour, alpha=shade, lw=0)
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xticks(places, list(values), minor=False)
    axes.minorticks_off()
    axes.set_xlabel(key)
    axes.set_ylabel(f"{metric}, mean over sites")
    axes.set_title("solid: test, with the range over seeds; dashed: validation", loc="left", fontsize=9)
    axes.grid(axis="y", lw=0.4)
    axes.legend(frameon=False)
    paths = [out / "sweep.png", out / "sweep.svg"]
    for path in paths:
        with storing(path), quiet_drawing():
            figure.savefig(path, dpi=150)
    return paths


def _places(values: Mapping[str, Any]) -> tuple[list[float], bool]:
    """Where each value stands on the axis, and whether that is logarithmic."""
    numbers = [v for v in values.values() if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        return list(map(float, range(len(values)))), False
    return list(map(float, numbers)), min(numbers) > 0 and max(numbers) >= 20 * min(numbers)
