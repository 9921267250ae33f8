"""Charts of diagnostics over the rounds: one a quantity for run reports, one of all for `harmofl diagnostics`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harmofl.analysis.diagnostics.records import DiagnosticsRecord, read_diagnostics
from harmofl.report.figures import ends
from harmofl.report.vega import Chart, Numbers, round_axis, told_apart, tooltip

FILE = "diagnostics.jsonl"


QUANTITIES = {
    "drift": "Drift Γ; dashed, for SGD: bound of Theorem 3.1",
    "relative": "Dissimilarity, share of the gradients",
    "epsilon": "ε, largest distance of two gradients",
    "cosine": "Cosine of two updates, mean",
    "sharpness": "Sharpness: rise of the loss at 0.05",
    "eigenvalue": "Top eigenvalue of the Hessian",
}
"""Title of each charted quantity by its column in the numbers."""
SCALARS = (
    *("seconds", "of_round", "images", "norm", "gradient", "square", "spread", "spread_unbiased", "relative"),
    *("epsilon", "variance", "sharpness", "eigenvalue", "residual", "drift", "drift_end", "bound", "step", "secant"),
    "cosine",
)


def measured(runs: Mapping[str, Path]) -> dict[str, list[DiagnosticsRecord]]:
    """Read the records of the run folders that have diagnostics, by label."""
    return {label: read_diagnostics(folder / FILE) for label, folder in runs.items() if (folder / FILE).is_file()}


def chart_rows(records: Mapping[str, Sequence[DiagnosticsRecord]]) -> list[dict[str, Any]]:
    """Return all numbers: one row a run and round, and one column each for a site's loss, rise and gradient."""
    found = []
    for label, own in records.items():
        for record in own:
            scalars = {name: getattr(record, name) for name in SCALARS}
            terms = {
                f"bound, {name}": record.terms.get(name, math.nan)
                for name in ("gradients", "dissimilarity", "variance")
            }
            sites = {
                f"{name}, {site}": value
                for name, values in (("loss", record.loss), ("rise", record.rise), ("gradient", record.gradients))
                for site, value in values.items()
            }
            found.append({"run": label, "round": record.round, **scalars, **terms, **sites})
    keys = dict.fromkeys(key for row in found for key in row)
    return [{key: row.get(key, math.nan) for key in keys} for row in found]


def charts(records: Mapping[str, Sequence[DiagnosticsRecord]]) -> list[Chart]:
    """Return one chart over the rounds for each measured quantity, with one colour a run."""
    numbers = chart_rows(records)
    return [
        Chart(
            f"theory-{name}",
            QUANTITIES[name],
            _said(name, numbers),
            {"height": 170, **_drawn(name, list(records))},
            [{key: row[key] for key in ("run", "round", *_lines(name))} for row in numbers],
        )
        for name in _known(numbers)
    ]


def chart(records: Mapping[str, Sequence[DiagnosticsRecord]]) -> Chart | None:
    """Return one chart of all measured quantities, with all numbers; None without records."""
    numbers = chart_rows(records)
    if not numbers:
        return None
    look = {"fontSize": 11, "fontWeight": "normal"}
    parts = [
        {"title": {"text": QUANTITIES[name], **look}, "width": 290, "height": 120, **_drawn(name, list(records))}
        for name in _known(numbers)
    ]
    spec = {"concat": parts, "columns": 2, "resolve": {"scale": {"color": "shared"}}}
    said = "; ".join(_said(name, numbers) for name in _known(numbers))
    return Chart("theory", "The theory measured, over the rounds", said, spec, numbers)


def _said(name: str, numbers: Numbers) -> str:
    return f"{QUANTITIES[name]}: {ends([row for row in numbers if math.isfinite(row[name])], name, '.3g')}"


def _known(numbers: Numbers) -> list[str]:
    return [name for name in QUANTITIES if any(math.isfinite(row[name]) for row in numbers)]


def _lines(name: str) -> tuple[str, ...]:
    return ("drift", "bound") if name == "drift" else (name,)


def _drawn(name: str, labels: Sequence[str]) -> dict[str, Any]:
    """Return layers with one line a run; drift has a logarithmic axis, and a dashed line for the bound."""
    scale = {"type": "log"} if name == "drift" else {"zero": False, "nice": True}
    looks: dict[str, Any] = {"bound": {"strokeDash": [5, 3], "opacity": 0.7}}
    layers = []
    for line in _lines(name):
        known = f"isValid(datum['{line}']) && isFinite(datum['{line}'])"
        known += f" && datum['{line}'] > 0" if name == "drift" else ""
        mark = {"type": "line", **looks.get(line, {"point": {"size": 18}})}
        y = {"field": line, "type": "quantitative", "title": None, "scale": scale, "axis": {"tickCount": 4}}
        layers.append({"transform": [{"filter": known}], "mark": mark, "encoding": {"y": y}})
    return {
        "layer": layers,
        "encoding": {
            "x": round_axis(),
            "color": told_apart("run", labels, legend=len(labels) > 1),
            "tooltip": tooltip("run", "round", **dict.fromkeys(_lines(name), ".4g")),
        },
    }
