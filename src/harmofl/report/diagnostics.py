"""The theory measured, as one chart of small multiples over the rounds; for run reports and `harmofl diagnostics`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmofl.diagnostics.records import Record, read
from harmofl.report.vega import COLOURS, Chart

FILE = "diagnostics.jsonl"


@dataclass(frozen=True)
class Quantity:
    """One of the small charts: its name in the numbers, its title, and whether its axis is logarithmic."""

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


def measured(runs: Mapping[str, Path]) -> dict[str, list[Record]]:
    """By label the records of those run folders that have some."""
    return {label: read(folder / FILE) for label, folder in runs.items() if (folder / FILE).is_file()}


def rows(records: Mapping[str, Sequence[Record]]) -> list[dict[str, Any]]:
    """Every number: a row a run and round; a column for each site's loss, rise and gradient."""
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


def chart(records: Mapping[str, Sequence[Record]], name: str = "theory") -> Chart | None:
    """All quantities over the rounds, a colour a run; None without records."""
    if not any(records.values()):
        return None
    numbers = rows(records)
    shown = [q for q in QUANTITIES if any(math.isfinite(row[q.name]) for row in numbers)]
    spec = {
        "concat": [_small(quantity, list(records)) for quantity in shown],
        "columns": 2,
        "resolve": {"scale": {"color": "shared"}},
    }
    said = "; ".join(_told(quantity, numbers) for quantity in shown)
    return Chart(name, "The theory measured, over the rounds", said, spec, numbers)


def _small(quantity: Quantity, labels: Sequence[str]) -> dict[str, Any]:
    scale = {"type": "log"} if quantity.log else {"zero": False, "nice": True}
    colours = {"domain": list(labels), "range": [COLOURS[k % len(COLOURS)] for k in range(len(labels))]}
    legend = {} if len(labels) > 1 else {"legend": None}
    tooltip = [{"field": "run"}, {"field": "round"}, {"field": quantity.name, "format": ".4g"}]
    line = _layer(quantity.name, scale, quantity.log, {"type": "line", "point": {"size": 18}})
    layers = [{**line, "encoding": {**line["encoding"], "tooltip": tooltip}}]
    if quantity.name == "drift":
        layers.append(_layer("bound", scale, True, {"type": "line", "strokeDash": [5, 3], "opacity": 0.7}))
    return {
        "title": {"text": quantity.title, "fontSize": 11, "fontWeight": "normal"},
        "width": 290,
        "height": 120,
        "layer": layers,
        "encoding": {
            "x": {
                "field": "round",
                "type": "quantitative",
                "title": "Round",
                "axis": {"tickMinStep": 1, "grid": False},
            },
            "color": {"field": "run", "type": "nominal", "title": None, "scale": colours, **legend},
        },
    }


def _layer(field: str, scale: Mapping[str, Any], positive: bool, mark: Mapping[str, Any]) -> dict[str, Any]:
    """A line over the rounds that have a value; on a logarithmic axis over those where it is above 0."""
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
