"""Charts of a comparison: test scores by seed, and validation curves over the rounds."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from harmofl.comparison.outcomes import Outcome
from harmofl.comparison.score_table import Comparison, sites_of
from harmofl.evaluation.confidence_intervals import Floats
from harmofl.report.scores import metric_words, number
from harmofl.report.vega import ALL, COLOURS, DASHES, EXACT, POINT, Chart, Spec, round_axis, told_apart, tooltip

MOST_CURVES = 8000
"""Largest number of points with which the curves of single sites are drawn beside the mean over the sites."""


def shorten(label: str, most: int = 45) -> str:
    """Cut a label to at most `most` characters."""
    return label if len(label) <= most else f"{label[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def overview_chart(comparison: Comparison) -> Chart:
    """Return the chart of mean, worst-site and unseen-site scores of each method and seed, best mean first."""
    everywhere = [
        o for o in comparison.outcomes if not comparison.left_out or len(o.sites) == len(sites_of(comparison))
    ]
    outcomes = sorted(everywhere, key=lambda outcome: -outcome.average.mean())
    rows = [
        {"method": labelled(o), "seed": seed, "of": kind, "score": float(score)}
        for o in outcomes
        for kind, scores in _kinds_of(o).items()
        for seed, score in zip(o.seeds, scores, strict=True)
        if math.isfinite(score)
    ]
    base = next((o for o in outcomes if o.variant.label == comparison.baseline), None)
    x = {"field": "score", "title": f"test {metric_words(comparison.metric)}", "type": "quantitative"}
    kinds = list(dict.fromkeys(str(row["of"]) for row in rows))
    encoding = {"x": {**x, "scale": {"zero": False}}, "y": down("method"), **_kinds(kinds)}
    mean = {"aggregate": [{"op": "mean", "field": "score", "as": "score"}], "groupby": ["method", "of"]}
    shown = tooltip("method", "of", "seed", score=".3f")
    layers: list[dict[str, Any]] = [
        {"mark": {**POINT, "size": 25, "opacity": 0.45}, "encoding": {**encoding, "tooltip": shown}},
        {"transform": [mean], "mark": {**POINT, "size": 110, "opacity": 1}, "encoding": encoding},
    ]
    if base is not None:
        layers.insert(0, rule_at(float(base.average.mean())))
    spec = {"height": 24 * len(outcomes), "layer": layers}
    told = "; ".join(
        f"{labelled(o)} " + ", ".join(f"{kind} {number(scores.mean())}" for kind, scores in _kinds_of(o).items())
        for o in outcomes
    )
    line = f"; the dashed line is {shorten(comparison.baseline)}" if base is not None else ""
    title = (
        f"Test {metric_words(comparison.metric)}: large points are means over seeds, small points single seeds{line}"
    )
    return Chart("comparison", title, told, spec, rows)


def _kinds_of(outcome: Outcome) -> dict[str, Floats]:
    unseen = {"unseen": outcome.average_unseen} if outcome.unseen else {}
    return {"mean over sites": outcome.average, "worst site": outcome.worst, **unseen}


def _kinds(kinds: Sequence[str]) -> dict[str, Any]:
    colour = {"domain": kinds, "range": [COLOURS[0], COLOURS[4], COLOURS[2]]}
    shape = {"domain": kinds, "range": ["circle", "triangle-down", "diamond"]}
    field = {"field": "of", "type": "nominal", "title": None}
    return {"color": {**field, "scale": colour}, "shape": {**field, "scale": shape}}


def down(field: str, **more: Any) -> dict[str, Any]:
    """Return the encoding of a nominal y axis with one line a name, in the order of the rows."""
    return {"field": field, "type": "nominal", "sort": None, "title": None, **more}


def labelled(outcome: Outcome) -> str:
    """Return the label of a method in the charts."""
    return outcome.variant.label + (" (reference)" if outcome.is_reference else "")


def all_labels(comparison: Comparison) -> list[str]:
    """Return the chart labels of all methods."""
    return [labelled(outcome) for outcome in comparison.outcomes]


def curves(comparison: Comparison) -> Chart | None:
    """Return the chart of validation scores over the rounds: mean over the seeds, range over the seeds as a band."""
    rows: list[dict[str, Any]] = []
    count = sum(curve.size for o in comparison.outcomes for curve in o.curves.values())
    for outcome in (o for o in comparison.outcomes if o.curves):
        mean = np.mean(list(outcome.curves.values()), axis=0)
        shown = {ALL: mean, **(outcome.curves if count <= MOST_CURVES else {})}
        rows += [row for site, curve in shown.items() for row in _curve(labelled(outcome), site, curve)]
    if not rows:
        return None
    told = tooltip("method", "site", "round", score=".3f", low=".3f", high=".3f")
    title, once = f"validation {metric_words(comparison.metric)}", len({row["round"] for row in rows}) == 1
    y = {"type": "quantitative", "title": title, "scale": {"zero": False}, "axis": EXACT}
    labels = all_labels(comparison)
    spec = {
        "height": 320,
        "layer": [
            band(y, 0.16),
            {
                "mark": {"type": "line", "strokeWidth": 2.2},
                "encoding": {"y": {**y, "field": "score"}, "strokeDash": told_apart("method", labels, DASHES)},
            },
            {
                "mark": {**POINT, "opacity": int(once), "size": 60},
                "encoding": {"y": {**y, "field": "score"}, "tooltip": told},
            },
        ],
        "transform": [{"filter": "datum.site == site"}],
        "encoding": {"x": round_axis(), "color": told_apart("method", labels)},
    }
    title = f"Validation {metric_words(comparison.metric)} over the rounds: mean and range over the seeds"
    ends = {row["method"]: row["score"] for row in rows if row["site"] == ALL}
    said = f"{title}; at the end: " + "; ".join(f"{method} {number(score)}" for method, score in ends.items())
    return Chart("curves", title, said, spec, rows, by_site=True)


def band(y: Spec, opacity: float) -> dict[str, Any]:
    """Return a layer that fills the range from `low` to `high` of each line."""
    mark = {"type": "area", "opacity": opacity}
    return {"mark": mark, "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}}}


def mean_and_range(scores: Floats) -> dict[str, float]:
    """Return mean, lowest and highest of the scores over the seeds, as a row of a chart."""
    return {"score": float(scores.mean()), "low": float(scores.min()), "high": float(scores.max())}


def _curve(label: str, site: str, curve: Floats) -> list[dict[str, Any]]:
    """Convert a (seeds, rounds) array to one row for each validated round."""
    return [
        {"method": label, "site": site, "round": k + 1, **mean_and_range(scores)}
        for k, scores in enumerate(curve.T)
        if np.isfinite(scores).all()
    ]


def rule_at(place: float) -> dict[str, Any]:
    """Return a layer with a dashed vertical line at `place` on the x axis."""
    mark = {"type": "rule", "strokeDash": [4, 3], "color": "var(--soft)"}
    return {"data": {"values": [{}]}, "mark": mark, "encoding": {"x": {"datum": place, "type": "quantitative"}}}
