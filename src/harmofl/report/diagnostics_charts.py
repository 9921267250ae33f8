"""Charts of diagnostics over the rounds: one a quantity for run reports, one of all for `harmofl diagnostics`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmofl.analysis.diagnostics.records import DiagnosticsRecord, read_diagnostics
from harmofl.report.vega import COLOURS, Chart

FILE = "diagnostics.jsonl"


@dataclass(frozen=True)
class Quantity:
    """One charted quantity: its column in the numbers, its title, and whether its axis is logarithmic."""

    name: str
    title: str
    log: bool = False


QUANTITIES = (
    Quantity("drift", "Drift Γ; dashed, for SGD: bound of Theorem 3.1", log=True),
    Quantity("relative", "Dissimilarity, share of the gradients"),
    Quantity("epsilon", "ε, largest distance of two gradients"),
    Quantity("cosine", "Cosine of two updates, mean"),
    Quantity("sharpness", "Sharpness: rise of the loss at 0.05"),
    Quantity("eigenvalue", "Top eigenvalue of the Hessian"),
)
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
            terms = {f"bound, {name}": record.terms.get(name, math.nan) for name in _TERMS}
            sites = {
                f"{name}, {site}": value
                for name, values in (("loss", record.loss), ("rise", record.rise), ("gradient", record.gradients))
                for site, value in values.items()
            }
            found.append({"run": label, "round": record.round, **scalars, **terms, **sites})
    keys = dict.fromkeys(key for row in found for key in row)
    return [{key: row.get(key, math.nan) for key in keys} for row in found]


_TERMS = ("gradients", "dissimilarity", "variance")


def charts(records: Mapping[str, Sequence[DiagnosticsRecord]]) -> list[Chart]:
    """Return one chart over the rounds for each measured quantity, with one colour a run."""
    numbers = chart_rows(records)
    return [
        Chart(
            f"theory-{quantity.name}",
            quantity.title,
            _told(quantity, numbers),
            {"height": 170, **_drawn(quantity, list(records))},
            [{key: row[key] for key in ("run", "round", *_lines(quantity))} for row in numbers],
        )
        for quantity in _known(numbers)
    ]


def chart(records: Mapping[str, Sequence[DiagnosticsRecord]]) -> Chart | None:
    """Return one chart of all measured quantities, with all numbers; None without records."""
    numbers = chart_rows(records)
    if not numbers:
        return None
    shown = _known(numbers)
    title = {"fontSize": 11, "fontWeight": "normal"}
    parts = [
        {"title": {"text": q.title, **title}, "width": 290, "height": 120, **_drawn(q, list(records))} for q in shown
    ]
    spec = {"concat": parts, "columns": 2, "resolve": {"scale": {"color": "shared"}}}
    said = "; ".join(_told(quantity, numbers) for quantity in shown)
    return Chart("theory", "The theory measured, over the rounds", said, spec, numbers)


def _known(numbers: Sequence[Mapping[str, Any]]) -> list[Quantity]:
    return [quantity for quantity in QUANTITIES if any(math.isfinite(row[quantity.name]) for row in numbers)]


def _lines(quantity: Quantity) -> tuple[str, ...]:
    return ("drift", "bound") if quantity.name == "drift" else (quantity.name,)


def _drawn(quantity: Quantity, labels: Sequence[str]) -> dict[str, Any]:
    """Return layers with one line a run, and a dashed line for the bound in the chart of drift."""
    scale = {"type": "log"} if quantity.log else {"zero": False, "nice": True}
    colours = {"domain": list(labels), "range": [COLOURS[k % len(COLOURS)] for k in range(len(labels))]}
    legend = {} if len(labels) > 1 else {"legend": None}
    lines = _lines(quantity)
    marks: list[dict[str, Any]] = [{"type": "line", "point": {"size": 18}}]
    marks.append({"type": "line", "strokeDash": [5, 3], "opacity": 0.7})
    tooltip = [{"field": "run"}, {"field": "round"}, *({"field": line, "format": ".4g"} for line in lines)]
    return {
        "layer": [_layer(line, scale, quantity.log, mark) for line, mark in zip(lines, marks, strict=False)],
        "encoding": {
            "x": {
                "field": "round",
                "type": "quantitative",
                "title": "Round",
                "axis": {"tickMinStep": 1, "grid": False},
            },
            "color": {"field": "run", "type": "nominal", "title": None, "scale": colours, **legend},
            "tooltip": tooltip,
        },
    }


def _layer(field: str, scale: Mapping[str, Any], positive: bool, mark: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line over the rounds with a finite value (`positive`: above 0, for a logarithmic axis)."""
    known = f"isValid(datum['{field}']) && isFinite(datum['{field}'])" + (f" && datum['{field}'] > 0" * positive)
    y = {"field": field, "type": "quantitative", "title": None, "scale": dict(scale), "axis": {"tickCount": 4}}
    return {"transform": [{"filter": known}], "mark": dict(mark), "encoding": {"y": y}}


def _told(quantity: Quantity, numbers: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for label in dict.fromkeys(row["run"] for row in numbers):
        own = [row for row in numbers if row["run"] == label and math.isfinite(row[quantity.name])]
        if own:
            first, last = own[0], own[-1]
            parts.append(
                f"{label} {first[quantity.name]:.3g} in round {first['round']}, "
                f"{last[quantity.name]:.3g} in round {last['round']}"
            )
    return f"{quantity.title}: {', '.join(parts)}"
