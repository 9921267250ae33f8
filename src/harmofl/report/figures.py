"""Charts of runs, each with its numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harmofl.experiment.finished_run import Round, Run
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
from harmofl.report.vega import ALL, COLOURS, DASHES, Chart

ChartRow = Mapping[str, Any]
FEW = 24
"""Largest number of sites for which each site has a small chart."""
_POINT: dict[str, Any] = {"type": "point", "filled": True}


def over_rounds(group: Group, ident: str) -> list[Chart]:
    """Return the charts of validation score and training loss of every run, mean over the sites or at one site."""
    score = f"validation {metric_words(group.metric)}"
    title = f"{metric_name(group.metric)} on validation images"
    return [
        _curves(group, f"{ident}-validation", title, _val(group), score, True),
        _curves(group, f"{ident}-loss", "Training loss", _loss, "loss"),
    ]


def per_site(group: Group, ident: str) -> list[Chart]:
    """Return one small static chart of validation scores per site, on one scale; none for more than `FEW` sites."""
    if not 1 < len(group.sites) <= FEW:
        return []
    charts = []
    rows = _rounds(group, _val(group), "score")
    values = [row["score"] for row in rows]
    span = [min(values), max(values)] if values else [0, 1]
    for index, site in enumerate(group.sites):
        own = [row for row in rows if row["site"] == site]
        spec = {
            "width": 190,
            "height": 110,
            "layer": [
                {"mark": {"type": "line"}, "encoding": _dash(group)},
                {"transform": [{"filter": "datum.chosen"}], "mark": {**_POINT, "shape": "diamond", "size": 60}},
            ],
            "encoding": {
                "x": round_axis(),
                "y": _axis("score", None, scale={"domain": span, "nice": True, "zero": False}),
                "color": _run_colour(group, legend=False),
            },
        }
        charts.append(
            Chart(f"{ident}-site{index}", f"Site {site}", _told(f"Site {site}", group, own, "score"), spec, own)
        )
    return charts


def _loss(line: Round, site: str) -> float:
    return line.train_loss.get(site, math.nan)


def _val(group: Group) -> Callable[[Round, str], float]:
    return lambda line, site: line.val.get(site, {}).get(group.metric, math.nan)


def _rounds(group: Group, value: Callable[[Round, str], float], name: str) -> list[dict[str, Any]]:
    """Return one row a run, site and round, and rows for the mean over the sites (scores: only if all have a value)."""
    rows = []
    for run in group.runs:
        chosen = run.result.chosen_round if run.result else None
        for line in run.rounds:
            values = {site: value(line, site) for site in group.sites}
            there = [one for one in values.values() if math.isfinite(one)]
            values = {ALL: mean_score(there if name == "loss" else list(values.values())), **values}
            rows += [
                {"run": run.label, "site": site, "round": line.round, name: one, "chosen": line.round == chosen}
                for site, one in values.items()
                if math.isfinite(one)
            ]
    return rows


def _curves(
    group: Group, ident: str, title: str, value: Callable[[Round, str], float], name: str, mark: bool = False
) -> Chart:
    rows = _rounds(group, value, name)
    tooltip = [{"field": key} for key in ("run", "site", "round")] + [{"field": name, "format": ".4f"}]
    shown = [{"filter": "datum.site == site"}]
    layers: list[dict[str, Any]] = []
    if len(group.runs) == 1 and len(group.sites) > 1:
        layers.append(
            {
                "transform": [{"filter": f"datum.site != site && datum.site != '{ALL}'"}],
                "mark": {"type": "line", "opacity": 0.4, "strokeWidth": 1},
                "encoding": {"detail": {"field": "site"}, "color": {"value": "var(--soft)"}},
            }
        )
    layers.append({"transform": shown, "mark": {"type": "line", "strokeWidth": 2.5}, "encoding": _dash(group)})
    if mark:
        layers.append(
            {
                "transform": [*shown, {"filter": "datum.chosen"}],
                "mark": {**_POINT, "shape": "diamond", "size": 110, "opacity": 1},
            }
        )
    layers.append(
        {
            "transform": shown if len(group.runs) > 1 else [],
            "mark": {**_POINT, "size": 120, "opacity": 0},
            "encoding": {"tooltip": tooltip},
        }
    )
    spec = {
        "height": 220,
        "layer": layers,
        "encoding": {
            "x": round_axis(),
            "y": _axis(name, name, scale={"zero": False}),
            "color": _run_colour(group, legend=len(group.runs) > 1),
        },
    }
    overall = [row for row in rows if row["site"] == ALL]
    return Chart(ident, title, _told(f"{title}, mean over the sites", group, overall, name), spec, rows, by_site=True)


def _told(title: str, group: Group, rows: Sequence[ChartRow], name: str) -> str:
    said = []
    for run in group.runs:
        own = [row for row in rows if row["run"] == run.label]
        if own:
            first, last = own[0], own[-1]
            said.append(
                f"{run.label} goes from {number(first[name])} at round {first['round']} "
                f"to {number(last[name])} at round {last['round']}"
            )
    return f"{title}, over the rounds: {'; '.join(said) or 'no values'}"


def round_axis() -> dict[str, Any]:
    """Return the encoding of the x axis of rounds, with ticks at whole numbers only."""
    axis = {"tickMinStep": 1, "format": "d", "grid": False}
    return {"field": "round", "type": "quantitative", "title": "Round", "axis": axis, "scale": {"nice": False}}


def _axis(field: str, title: str | None, **more: Any) -> dict[str, Any]:
    return {"field": field.replace(".", "\\."), "type": "quantitative", "title": title, **more}


def _run_colour(group: Group, *, legend: bool) -> dict[str, Any]:
    labels = [run.label for run in group.runs]
    scale = {"domain": labels, "range": [COLOURS[k % len(COLOURS)] for k in range(len(labels))]}
    return {"field": "run", "type": "nominal", "title": None, "scale": scale, **({} if legend else {"legend": None})}


def _dash(group: Group) -> dict[str, Any]:
    """Return the dash encoding of the runs; the dashes change after all colours have been used."""
    labels = [run.label for run in group.runs]
    scale = {"domain": labels, "range": [DASHES[k // len(COLOURS) % len(DASHES)] for k in range(len(labels))]}
    return {"strokeDash": {"field": "run", "type": "nominal", "legend": None, "scale": scale}}


def scores(group: Group, ident: str) -> Chart:
    """Return the chart of test scores of every finished run and site, with 95 % intervals over the test patients."""
    rows: list[dict[str, Any]] = []
    for run in group.finished:
        for site, value in scores_of_run(run, group.metric).items():
            low, high = interval_at(run, site)
            if math.isfinite(value):
                trained = site in group.sites
                rows.append(
                    {
                        "run": run.label,
                        "site": site if trained else UNSEEN.format(site),
                        "score": value,
                        "low": low,
                        "high": high,
                    }
                )
    order = list(dict.fromkeys(row["site"] for row in rows))
    many = len(group.finished) > 1
    tooltip = [{"field": key} for key in ("site", "run")]
    tooltip += [{"field": key, "format": ".3f"} for key in ("score", "low", "high")]
    offset = {"yOffset": {"field": "run", "sort": None, "scale": {"paddingInner": 0.2}}} if many else {}
    scale = {"zero": False, "nice": True}
    interval = {
        "x": _axis("low", metric_name(group.metric), scale=scale, axis={"tickCount": 8}),
        "x2": {"field": "high"},
    }
    point = {"x": _axis("score", metric_name(group.metric), scale=scale, axis={"tickCount": 8})}
    spec = {
        "height": len(order) * (13 * len(group.finished) + 4 if many else 22),
        "layer": [
            {
                "transform": [{"filter": "isValid(datum.low)"}],
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6},
                "encoding": interval,
            },
            {"mark": {**_POINT, "size": 70, "opacity": 1}, "encoding": point},
        ],
        "encoding": {
            "y": {
                "field": "site",
                "type": "nominal",
                "sort": order,
                "title": None,
                "axis": {"grid": many, "tickBand": "extent", "labelLimit": 140},
            },
            **offset,
            "color": _run_colour(group, legend=many),
            "tooltip": tooltip,
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
            "color": _run_colour(group, legend=len(group.finished) > 1),
            "tooltip": [{"field": key} for key in ("run", "site", "case")] + [{"field": "score", "format": ".3f"}],
        },
    }
    lowest = min(rows, key=lambda row: row["score"])
    said = f"{len(rows)} test cases; the lowest is {lowest['case']} at {lowest['site']} with {number(lowest['score'])}"
    return Chart(f"{ident}-cases", "Every test case", said, spec, rows)


def time_and_traffic(runs: Sequence[Run], ident: str = "cost") -> Chart | None:
    """Return the chart of seconds a round, with megabytes in its numbers; None without times."""
    group = Group("", (), tuple(runs))
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
            "color": _run_colour(group, legend=len(runs) > 1),
            **_dash(group),
            "tooltip": [{"field": "run"}, {"field": "round"}]
            + [{"field": key, "format": ".2f"} for key in ("seconds", "megabytes")],
        },
    }
    said = "Seconds of every round: " + "; ".join(
        f"{run.label} {min(own):.2f} to {max(own):.2f}"
        for run in runs
        if (own := [float(str(row["seconds"])) for row in rows if row["run"] == run.label])
    )
    return Chart(f"{ident}-seconds", "Seconds a round, and megabytes sent", said, spec, rows)


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
    states = ["trained", "not drawn", "left out"]
    spec = {
        "height": 16 * len(run.sites_ever),
        "mark": {"type": "rect", "stroke": "var(--card)", "strokeWidth": 1},
        "encoding": {
            "x": {
                "field": "round",
                "type": "ordinal",
                "title": "Round",
                "axis": {"labelOverlap": True, "labelAngle": 0},
            },
            "y": {"field": "site", "type": "nominal", "sort": None, "title": None},
            "color": {
                "field": "state",
                "type": "nominal",
                "title": None,
                "scale": {"domain": states, "range": ["var(--s2)", "var(--line)", "var(--s4)"]},
            },
            "tooltip": [{"field": key} for key in ("site", "round", "state", "reason")],
        },
    }
    counts = {state: sum(row["state"] == state for row in rows) for state in states}
    said = f"{run.label}, sites and rounds: " + ", ".join(f"{count} {state}" for state, count in counts.items())
    return Chart(f"{ident}-participation", f"{run.label}: who took part in which round", said, spec, rows)
