"""Charts of runs, each with its numbers."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from harmofl.experiment.finished_run import Run
from harmofl.report.scores import (
    UNSEEN,
    Group,
    interval_at,
    mean_score,
    metric_name,
    metric_words,
    number,
    scores_of_run,
)
from harmofl.report.vega import (
    ALL,
    DASHES,
    EXACT,
    POINT,
    Chart,
    Numbers,
    interval_layer,
    round_axis,
    told_apart,
    tooltip,
)

FEW = 24
"""Largest number of sites for which each site has a small chart."""


def over_rounds(group: Group, ident: str) -> list[Chart]:
    """Return the charts of validation score and training loss of every run, mean over the sites or at one site."""
    title = f"{metric_name(group.metric)} on validation images"
    score = f"validation {metric_words(group.metric)}"
    return [
        _curves(group, f"{ident}-validation", title, score),
        _curves(group, f"{ident}-loss", "Training loss", "loss"),
    ]


def per_site(group: Group, ident: str) -> list[Chart]:
    """Return one small static chart of validation scores per site, on one scale; none for more than `FEW` sites."""
    if not 1 < len(group.sites) <= FEW:
        return []
    charts = []
    rows = _rounds(group, "score")
    values = [row["score"] for row in rows]
    span = [min(values), max(values)] if values else [0, 1]
    for index, site in enumerate(group.sites):
        own = [row for row in rows if row["site"] == site]
        spec = {
            "width": 190,
            "height": 110,
            "layer": [
                {"mark": {"type": "line"}, "encoding": _dash(group.runs)},
                {"transform": [{"filter": "datum.chosen"}], "mark": {**POINT, "shape": "diamond", "size": 60}},
            ],
            "encoding": {
                "x": round_axis(),
                "y": _axis("score", None, scale={"domain": span, "nice": True, "zero": False}),
                "color": _colour(group.runs, legend=False),
            },
        }
        said = f"Site {site}, over the rounds: {ends(own, 'score')}"
        charts.append(Chart(f"{ident}-site{index}", f"Site {site}", said, spec, own))
    return charts


def _rounds(group: Group, name: str) -> list[dict[str, Any]]:
    """Return one row a run, site and round, and rows for the mean over the sites (scores: only if all have a value)."""
    rows = []
    for run in group.runs:
        chosen = run.result.chosen_round if run.result else None
        for line in run.rounds:
            scores = {site: of_site.get(group.metric, math.nan) for site, of_site in line.val.items()}
            found = line.train_loss if name == "loss" else scores
            values = {site: found.get(site, math.nan) for site in group.sites}
            there = [one for one in values.values() if math.isfinite(one)]
            values = {ALL: mean_score(there if name == "loss" else list(values.values())), **values}
            rows += [
                {"run": run.label, "site": site, "round": line.round, name: one, "chosen": line.round == chosen}
                for site, one in values.items()
                if math.isfinite(one)
            ]
    return rows


def _curves(group: Group, ident: str, title: str, name: str) -> Chart:
    rows = _rounds(group, name)
    shown = [{"filter": "datum.site == site"}]
    alone, once = len(group.runs) == 1, len({row["round"] for row in rows}) == 1
    others = {
        "transform": [{"filter": f"datum.site != site && datum.site != '{ALL}'"}],
        "mark": {"type": "line", "opacity": 0.4, "strokeWidth": 1},
        "encoding": {"detail": {"field": "site"}, "color": {"value": "var(--soft)"}},
    }
    line = {"transform": shown, "mark": {"type": "line", "strokeWidth": 2.5}, "encoding": _dash(group.runs)}
    chosen = {
        "transform": [*shown, {"filter": "datum.chosen"}],
        "mark": {**POINT, "shape": "diamond", "size": 110, "opacity": 1},
    }
    seen = {"condition": {"test": "datum.site == site", "value": 1}, "value": 0.3}
    pointed_at = {
        "transform": [] if alone else shown,
        "mark": {**POINT, "size": 120},
        "encoding": {
            "opacity": seen if once else {"value": 0},
            "tooltip": tooltip("run", "site", "round", **{name: ".4f"}),
        },
    }
    drawn = [(others, alone and len(group.sites) > 1), (line, True), (chosen, name != "loss"), (pointed_at, True)]
    spec = {
        "height": 220,
        "layer": [layer for layer, wanted in drawn if wanted],
        "encoding": {
            "x": round_axis(),
            "y": _axis(name, name, scale={"zero": False}, axis=EXACT),
            "color": _colour(group.runs, legend=not alone),
        },
    }
    overall = [row for row in rows if row["site"] == ALL]
    said = f"{title}, mean over the sites, over the rounds: {ends(overall, name)}"
    return Chart(ident, title, said, spec, rows, by_site=True)


def ends(rows: Numbers, name: str, form: str = ".3f") -> str:
    """Describe the first and the last value of each run."""
    said = []
    for label, of_run in groupby(rows, lambda row: row["run"]):
        own = list(of_run)
        first, last = own[0], own[-1]
        said.append(
            f"{label} goes from {number(first[name], form)} at round {first['round']} "
            f"to {number(last[name], form)} at round {last['round']}"
        )
    return "; ".join(said) or "no values"


def _axis(field: str, title: str | None, **more: Any) -> dict[str, Any]:
    return {"field": field.replace(".", "\\."), "type": "quantitative", "title": title, **more}


def _colour(runs: Sequence[Run], *, legend: bool) -> dict[str, Any]:
    return told_apart("run", [run.label for run in runs], legend=legend)


def _dash(runs: Sequence[Run]) -> dict[str, Any]:
    return {"strokeDash": told_apart("run", [run.label for run in runs], DASHES, legend=False)}


def scores(group: Group, ident: str) -> Chart:
    """Return the chart of test scores of every finished run and site, with 95 % intervals over the test patients."""
    rows: list[dict[str, Any]] = []
    for run in group.finished:
        for site, value in scores_of_run(run, group.metric).items():
            name = site if site in group.sites else UNSEEN.format(site)
            low, high = interval_at(run, site)
            if math.isfinite(value):
                rows.append({"run": run.label, "site": name, "score": value, "low": low, "high": high})
    order = list(dict.fromkeys(row["site"] for row in rows))
    many = len(group.finished) > 1
    offset = {"yOffset": {"field": "run", "sort": None, "scale": {"paddingInner": 0.2}}} if many else {}
    x: dict[str, Any] = {
        "title": metric_name(group.metric),
        "scale": {"zero": False, "nice": True},
        "axis": {"tickCount": 8},
    }
    across = {"grid": many, "tickBand": "extent", "labelLimit": 140}
    spec = {
        "height": len(order) * (13 * len(group.finished) + 4 if many else 22),
        "layer": [
            interval_layer({"x": _axis("low", **x), "x2": {"field": "high"}}),
            {"mark": {**POINT, "size": 70, "opacity": 1}, "encoding": {"x": _axis("score", **x)}},
        ],
        "encoding": {
            "y": {"field": "site", "type": "nominal", "sort": order, "title": None, "axis": across},
            **offset,
            "color": _colour(group.runs, legend=many),
            "tooltip": tooltip("site", "run", score=".3f", low=".3f", high=".3f"),
        },
    }
    told = "; ".join(f"{row['run']} at {row['site']} {number(row['score'])}" for row in rows)
    title = f"Test {metric_words(group.metric)} with 95 % intervals over patients"
    return Chart(f"{ident}-scores", title, f"{title}: {told}", spec, rows)


def cases(group: Group, ident: str) -> Chart | None:
    """Return the chart of the score of every test case; None without segmentation."""
    rows: list[dict[str, Any]] = [
        {"run": run.label, "site": site, "case": case, "score": score}
        for run in group.finished
        if run.result and run.result.task == "segmentation"
        for site, found in run.cases.items()
        for case, score in zip(found.cases, found.scores, strict=True)
        if math.isfinite(score)
    ]
    if not rows:
        return None
    spec = {
        "height": 22 * len({row["site"] for row in rows}),
        "mark": {"type": "point", "size": 30, "opacity": 0.7},
        "encoding": {
            "x": _axis("score", metric_name(group.metric), scale={"domain": [0, 1]}),
            "y": {"field": "site", "type": "nominal", "sort": None, "title": None, "axis": {"grid": True}},
            "color": _colour(group.runs, legend=len(group.finished) > 1),
            "tooltip": tooltip("run", "site", "case", score=".3f"),
        },
    }
    lowest = min(rows, key=lambda row: row["score"])
    said = f"{len(rows)} test cases; the lowest is {lowest['case']} at {lowest['site']} with {number(lowest['score'])}"
    return Chart(f"{ident}-cases", "Every test case", said, spec, rows)


def time_and_traffic(runs: Sequence[Run]) -> Chart | None:
    """Return the chart of seconds a round, with megabytes in its tooltips and table; None without times."""
    rows = [
        {
            "run": run.label,
            "round": line.round,
            "seconds": line.seconds,
            "megabytes": (line.bytes_up + line.bytes_down) / 1e6,
        }
        for run in runs
        for line in run.rounds
        if math.isfinite(line.seconds)
    ]
    if not rows:
        return None
    spec = {
        "height": 160,
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": round_axis(),
            "y": _axis("seconds", "seconds", scale={"zero": True}),
            "color": _colour(runs, legend=len(runs) > 1),
            **_dash(runs),
            "tooltip": tooltip("run", "round", seconds=".2f", megabytes=".2f"),
        },
    }
    said = "Seconds of every round: " + "; ".join(
        f"{run.label} {min(own):.2f} to {max(own):.2f}"
        for run in runs
        if (own := [float(str(row["seconds"])) for row in rows if row["run"] == run.label])
    )
    return Chart("cost-seconds", "Seconds per round", said, spec, rows)


def participation(run: Run, ident: str) -> Chart | None:
    """Return the chart of the sites that trained in each round; None if every site trained in every round."""
    rows = [
        {"site": site, "round": line.round, "state": state, "reason": line.left_out.get(site, "")}
        for line in run.rounds
        for site in run.sites_ever
        for state in ["trained" if site in line.train_loss else "left out" if site in line.left_out else "not drawn"]
    ]
    if all(row["state"] == "trained" for row in rows):
        return None
    states = {"trained": "var(--s2)", "not drawn": "var(--line)", "left out": "var(--s4)"}
    axis = {"labelOverlap": True, "labelAngle": 0}
    spec = {
        "height": 16 * len(run.sites_ever),
        "mark": {"type": "rect", "stroke": "var(--card)", "strokeWidth": 1},
        "encoding": {
            "x": {"field": "round", "type": "ordinal", "title": "Round", "axis": axis},
            "y": {"field": "site", "type": "nominal", "sort": None, "title": None},
            "color": told_apart("state", list(states), list(states.values())),
            "tooltip": tooltip("site", "round", "state", "reason"),
        },
    }
    counts = {state: sum(row["state"] == state for row in rows) for state in states}
    said = f"{run.label}, sites and rounds: " + ", ".join(f"{count} {state}" for state, count in counts.items())
    return Chart(f"{ident}-participation", f"{run.label}: participation of the sites by round", said, spec, rows)
