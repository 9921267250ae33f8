"""Sweep of one setting over several values, as in the paper's Figure 5, as data and as a chart."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harmofl.comparison.charts import band, mean_and_range
from harmofl.comparison.comparison_page import write_comparison
from harmofl.comparison.outcomes import Outcome
from harmofl.comparison.score_table import Comparison
from harmofl.comparison.study import site_names
from harmofl.comparison.variants import Variant, check_may_differ
from harmofl.data.csv_tables import csv_text
from harmofl.errors import ConfigError
from harmofl.experiment.tables import Experiment
from harmofl.report.scores import metric_name
from harmofl.report.vega import Chart, picture, told_apart, tooltip
from harmofl.utils.atomic_files import write_atomic
from harmofl.utils.toml_values import parse_value, split_outside

SITES = "sites"
"""The sweep key for the number of participating sites; it is no key of an experiment."""


def parse_sweep(text: str) -> tuple[str, dict[str, Any]]:
    """Parse `method.rho=1,0.5,0.05` into the key and the values by their text.

    Raises:
        ConfigError: if `text` has another form or fewer than two values.
    """
    key, equals, values = text.partition("=")
    parsed: dict[str, Any] = {}
    for value in filter(None, split_outside(values, ",")):
        if (one := parse_value(value)) not in parsed.values():
            parsed[value] = one
    if not equals or not key.strip() or len(parsed) < 2:
        raise ConfigError(f"--over must be a key with two or more values, such as method.rho=1,0.5,0.05, got {text!r}")
    return key.strip(), parsed


def swept(base: Experiment, variants: Sequence[Variant], key: str, values: Mapping[str, Any]) -> list[list[Variant]]:
    """Return a copy of each variant for each value; `sites=N` takes the first N sites by name.

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
        raise ConfigError(f"--over sites must have numbers from 1 to {len(names)}, got {value!r}")
    return {"data.sites": tuple(names[:value])}


Lines = Mapping[str, Sequence[Outcome | None]]
"""Method -> one outcome a value; None if no run finished."""


def write_sweep(lines: Lines, key: str, values: Mapping[str, Any], comparison: Comparison, out: Path) -> list[Path]:
    """Write sweep.csv, the chart as sweep.png and sweep.svg, and report.html with the chart.

    Args:
        lines: outcomes of each method, one a value.
        key: the swept setting.
        values: the values by their text.
        comparison: the comparison of all outcomes.
        out: the folder to write to.
    """
    chart = sweep_chart(lines, key, values, comparison.metric)
    write_atomic(out / "sweep.csv", _table(lines, key, values, comparison.metric).encode())
    write_atomic(out / "sweep.png", picture(chart, "png"))
    write_atomic(out / "sweep.svg", picture(chart, "svg"))
    return [out / "sweep.csv", out / "sweep.png", out / "sweep.svg", write_comparison(comparison, out, chart)]


def _table(lines: Lines, key: str, values: Mapping[str, Any], metric: str) -> str:
    rows: list[list[Any]] = [["method", key, "seed", f"validation {metric}", f"test {metric}", f"worst site {metric}"]]
    for label, outcomes in lines.items():
        for text, outcome in zip(values, outcomes, strict=True):
            if outcome is not None:
                columns = (outcome.seeds, outcome.val, outcome.average, outcome.worst)
                rows += ([label, text, *row] for row in zip(*columns, strict=True))
    return csv_text(rows)


def sweep_chart(lines: Lines, key: str, values: Mapping[str, Any], metric: str) -> Chart:
    """Return the sweep chart (the paper's Figure 5): one line a method, its range over the seeds as a band."""
    places, logarithmic = _places(values)
    rows = [
        {"method": label, "value": text, "place": place, "of": of, **mean_and_range(scores)}
        for label, outcomes in lines.items()
        for text, place, outcome in sorted(zip(values, places, outcomes, strict=True), key=lambda one: one[1])
        if outcome is not None
        for of, scores in (("test", outcome.average), ("validation", outcome.val))
        if np.isfinite(scores).all()
    ]
    names = _written(places, list(values))
    axis = {"values": places, "labelExpr": names, "labelOverlap": True}
    x = {"field": "place", "type": "quantitative", "title": key, "axis": axis}
    x["scale"] = {"type": "log"} if logarithmic else {"zero": False}
    y = {"type": "quantitative", "title": f"{metric_name(metric)}, mean over sites", "scale": {"zero": False}}
    shown = tooltip("method", "value", "of", score=".3f", low=".3f", high=".3f")
    kinds = {"domain": ["test", "validation"], "range": [[1, 0], [4, 3]]}
    dashed = {
        "field": "of",
        "type": "nominal",
        "title": None,
        "legend": {"symbolType": "stroke", "encode": {"symbols": {"update": {"stroke": {"value": "currentColor"}}}}},
    }
    spec = {
        "height": 280,
        "layer": [
            {"transform": [{"filter": "datum.of == 'test'"}], **band(y, 0.18)},
            {
                "mark": {"type": "line", "point": {"filled": True, "size": 55}},
                "encoding": {
                    "y": {**y, "field": "score"},
                    "strokeDash": {**dashed, "scale": kinds},
                    "tooltip": shown,
                },
            },
        ],
        "encoding": {"x": x, "color": told_apart("method", list(lines))},
    }
    told = "; ".join(f"{r['method']} at {r['value']} {r['score']:.3f}" for r in rows if r["of"] == "test")
    title = f"{metric_name(metric)} against {key}: mean and range over the seeds"
    return Chart("sweep", title, f"{title}: {told}", spec, rows)


def _written(places: Sequence[float], names: Sequence[str]) -> str:
    """Return a Vega expression that labels each position with the original text of its value."""
    return f"{json.dumps(list(names))}[indexof({json.dumps(list(places))}, datum.value)] || datum.label"


def _places(values: Mapping[str, Any]) -> tuple[list[float], bool]:
    """Return the position of each value on the axis, and True if the axis is logarithmic."""
    numbers = [v for v in values.values() if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        return list(map(float, range(len(values)))), False
    return list(map(float, numbers)), min(numbers) > 0 and max(numbers) >= 20 * min(numbers)
