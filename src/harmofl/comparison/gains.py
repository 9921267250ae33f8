"""Charts of the gain of each method over the baseline: by site, and against cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harmofl.comparison.charts import all_labels, down, labelled, rule_at, shorten
from harmofl.comparison.score_table import Comparison, sites_of
from harmofl.comparison.statistics import Difference, at, corrected, method_difference
from harmofl.report.scores import metric_words
from harmofl.report.vega import POINT, SHAPES, Chart, interval_layer, told_apart, tooltip

MOST_DIFFERENCES = 300
"""Largest number of pairs of method and site for which the chart of site differences is drawn."""
GainRow = Mapping[str, Any]


def site_differences(comparison: Comparison) -> Chart | None:
    """Return the chart of differences to the baseline for each method and site, with 95 % intervals."""
    known = [(method, "mean over sites", found) for method, found in _differences(comparison)]
    base = next((o for o in comparison.outcomes if o.variant.label == comparison.baseline), None)
    others = [o for o in comparison.outcomes if o is not base]
    if base is None or not known or len(others) * len(sites_of(comparison)) > MOST_DIFFERENCES:
        return None
    for site in (*sites_of(comparison), *comparison.unseen):
        for other in others:
            if all(site in (*o.sites, *o.unseen) for o in (other, base)):
                found = method_difference(at(other, [site]), at(base, [site]))
                where = f"{site} (unseen)" if site in comparison.unseen else site
                known += [(labelled(other), where, found)] if found else []
    fair = corrected([found for _, _, found in known])
    places = [(method, site) for method, site, _ in known]
    rows = [_difference_row(*place, found) for place, found in zip(places, fair, strict=True) if found]
    sites = list(dict.fromkeys(row["site"] for row in rows))
    x = {"type": "quantitative", "title": f"difference to {shorten(comparison.baseline)}", "axis": {"tickCount": 8}}
    shown = tooltip("method", "site", difference="+.3f", low="+.3f", high="+.3f")
    shown += [{"field": "better", "title": "seeds in which it is better"}, {"field": "clear"}]
    spec = {
        "height": len(sites) * (11 * len(others) + 8),
        "layer": [
            rule_at(0),
            interval_layer(_by_method(comparison, {"x": {**x, "field": "low"}, "x2": {"field": "high"}})),
            {
                "mark": {**POINT, "size": 60, "opacity": 1},
                "encoding": _by_method(comparison, {"x": {**x, "field": "difference"}, "tooltip": shown}),
            },
        ],
    }
    said = [f"{r['method']} at {r['site']} {r['difference']:+.3f}" for r in rows if r["clear"] == "yes"]
    title = f"Test {metric_words(comparison.metric)}, difference to {shorten(comparison.baseline)} at every site"
    told = f"{comparison.interval_over}; clear after Holm's correction for all of these: {'; '.join(said) or 'none'}"
    return Chart("differences", title, f"{title}; {told}", spec, rows)


def _by_method(comparison: Comparison, encoding: dict[str, Any]) -> dict[str, Any]:
    offset = {"field": "method", "sort": None, "scale": {"paddingInner": 0.2}}
    axis = {"axis": {"grid": True, "tickBand": "extent"}}
    return {
        "y": down("site", **axis),
        "yOffset": offset,
        "color": told_apart("method", all_labels(comparison)),
        **encoding,
    }


def _differences(comparison: Comparison) -> list[tuple[str, Difference]]:
    pairs = zip(comparison.outcomes, comparison.differences, strict=True)
    return [(labelled(outcome), found) for outcome, found in pairs if found is not None]


def _difference_row(method: str, site: str, found: Difference) -> dict[str, Any]:
    numbers = {"difference": found.mean, "low": found.low, "high": found.high}
    clear = "yes" if found.clear else "no"
    return {"method": method, "site": site, **numbers, "better": f"{found.better} of {found.seeds}", "clear": clear}


def cost_against_gain(comparison: Comparison) -> list[Chart]:
    """Return the charts of gain over the baseline against training time and against traffic."""
    rows: list[dict[str, Any]] = []
    for outcome, found in zip(comparison.outcomes, comparison.differences, strict=True):
        if found is None and outcome.variant.label != comparison.baseline:
            continue
        gain = (found.mean, found.low, found.high) if found else (0.0, math.nan, math.nan)
        cost = outcome.cost
        row = {"method": labelled(outcome), "minutes": cost.seconds * cost.rounds / 60, "megabytes": cost.megabytes}
        rows.append({**row, **dict(zip(("gain", "low", "high"), gain, strict=True))})
    if len(rows) < 2:
        return []
    return [
        _cost_chart(comparison, rows, "minutes", "minutes of a run", "time"),
        _cost_chart(comparison, rows, "megabytes", "megabytes sent in a run", "traffic"),
    ]


def _cost_chart(comparison: Comparison, rows: Sequence[GainRow], field: str, title: str, word: str) -> Chart:
    x = {"field": field, "type": "quantitative", "title": title}
    y = {"type": "quantitative", "title": f"gain over {shorten(comparison.baseline, 24)}"}
    shown = tooltip("method", minutes=".1f", megabytes=".1f", gain="+.3f", low="+.3f", high="+.3f")
    spec = {
        "height": 260,
        "layer": [
            interval_layer({"y": {**y, "field": "low"}, "y2": {"field": "high"}}, 0.5),
            {"mark": {**POINT, "size": 80, "opacity": 1}, "encoding": {"tooltip": shown}},
        ],
        "encoding": {
            "x": x,
            "y": {**y, "field": "gain"},
            "color": told_apart("method", all_labels(comparison)),
            "shape": told_apart("method", all_labels(comparison), SHAPES),
        },
    }
    told = "; ".join(f"{row['method']} {row['gain']:+.3f} for {row[field]:.1f} {field}" for row in rows)
    return Chart(f"cost-{word}", f"Gain against {word}", f"Gain against {word}: {told}", spec, rows)
