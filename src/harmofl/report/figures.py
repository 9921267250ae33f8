"""The charts: curves over the rounds and bars per site."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from harmofl.report.load import Round, Run
from harmofl.report.scores import Group, mean, metric_name, metric_words, number, site_values
from harmofl.report.svg import DASHES, INK, SERIES, draw

Value = Callable[[Round], float]
Span = tuple[float, float] | None  # of the vertical axis; None fits the values
WIDE, SMALL, BARS = (5.2, 3.0), (2.9, 2.1), (10.4, 3.2)  # inches
MARGINS = (0.52, 0.44, 0.12, 0.3)


@dataclass(frozen=True)
class Curve:
    """One run's line: the rounds that have a value, and the round the model was taken from."""

    label: str
    index: int
    rounds: tuple[int, ...]
    values: tuple[float, ...]
    chosen: int | None


def overview(group: Group, ident: str) -> list[Markup]:
    """The mean validation score and the mean training loss of every run."""
    return [
        _chart(
            f"{ident}-val",
            f"Mean validation {metric_words(group.metric)}",
            WIDE,
            _curves(group, lambda line: mean(site_values(line.val, group.sites, group.metric)), mark=True),
        ),
        _chart(
            f"{ident}-loss",
            "Mean training loss",
            WIDE,
            _curves(group, lambda line: mean(list(line.train_loss.values()))),
        ),
    ]


def per_site(group: Group, ident: str) -> list[Markup]:
    """The validation score of every run, one small chart per site, all on the same scale."""
    lines = {site: _curves(group, _value_at(site, group.metric), mark=True) for site in group.sites}
    values = [value for curves in lines.values() for curve in curves for value in curve.values]
    margin = 0.05 * (max(values) - min(values)) if values else 0.0
    span = (min(values) - margin, max(values) + margin) if margin else None
    return [
        _chart(f"{ident}-site{index}", f"Site {site}", SMALL, curves, span)
        for index, (site, curves) in enumerate(lines.items())
    ]


def bars(group: Group, ident: str) -> Markup:
    """The test score of every finished run, side by side per site."""
    series = [(index, _test_values(group, run)) for index, run in enumerate(group.runs) if run.result]
    told = [f"{group.runs[index].label} {', '.join(map(number, values))}" for index, values in series]
    title = f"Test {metric_words(group.metric)} at {', '.join(group.sites)}: {'; '.join(told)}"
    return draw(f"{ident}-bars", title, BARS, lambda axes: _paint_bars(axes, group, series))


def _value_at(site: str, metric: str) -> Value:
    return lambda line: line.val.get(site, {}).get(metric, math.nan)


def _test_values(group: Group, run: Run) -> list[float]:
    return site_values(run.result.test, group.sites, group.metric) if run.result else []


def _curves(group: Group, value: Value, *, mark: bool = False) -> list[Curve]:
    curves = []
    for index, run in enumerate(group.runs):
        points = [(line.round, value(line)) for line in run.rounds]
        finite = [(round_, score) for round_, score in points if math.isfinite(score)]
        chosen = run.result.chosen_round if run.result and mark else None
        rounds, values = tuple(point[0] for point in finite), tuple(point[1] for point in finite)
        curves.append(Curve(run.label, index, rounds, values, chosen))
    return curves


def _chart(ident: str, title: str, size: tuple[float, float], curves: Sequence[Curve], span: Span = None) -> Markup:
    return draw(ident, _describe(title, curves), size, lambda axes: _paint_curves(axes, title, curves, span), MARGINS)


def _describe(title: str, curves: Sequence[Curve]) -> str:
    said = [
        f"{curve.label} goes from {number(curve.values[0])} at round {curve.rounds[0]}"
        f" to {number(curve.values[-1])} at round {curve.rounds[-1]}"
        for curve in curves
        if curve.values
    ]
    return f"{title} over the rounds: {'; '.join(said) or 'no values'}"


def _paint_curves(axes: Axes, title: str, curves: Sequence[Curve], span: Span) -> None:
    for curve in curves:
        _paint_curve(axes, curve)
    axes.set_title(title)
    if span:
        axes.set_ylim(span)
    axes.set_xlabel("Round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def _paint_curve(axes: Axes, curve: Curve) -> None:
    colour = SERIES[curve.index % len(SERIES)]
    marker = "o" if len(curve.values) < 3 else ""
    (line,) = axes.plot(curve.rounds, curve.values, color=colour, marker=marker, markersize=3.5)
    line.set_linestyle(line_style(curve.index))
    if curve.chosen in curve.rounds:
        value = curve.values[curve.rounds.index(curve.chosen)]
        axes.plot([curve.chosen], [value], color=colour, marker="D", markersize=6, linestyle="none")


def dash_pattern(index: int) -> str:
    """The dashes of a run's line, which change once every colour has been used, as SVG writes them."""
    return DASHES[index // len(SERIES) % len(DASHES)]


def line_style(index: int) -> Literal["-"] | tuple[float, tuple[float, ...]]:
    """`dash_pattern` as matplotlib writes it."""
    lengths = tuple(float(length) for length in dash_pattern(index).split())
    return (0, lengths) if lengths else "-"


def _paint_bars(axes: Axes, group: Group, series: Sequence[tuple[int, list[float]]]) -> None:
    width = min(0.8 / max(len(series), 1), 0.3)
    labelled = len(series) * len(group.sites) <= 24
    for place, (index, values) in enumerate(series):
        middle = [site + (place - (len(series) - 1) / 2) * width for site in range(len(group.sites))]
        drawn = axes.bar(middle, values, width=0.92 * width, color=SERIES[index % len(SERIES)])
        if labelled:
            texts = [f"{value:.2f}" if math.isfinite(value) else "" for value in values]
            axes.bar_label(drawn, labels=texts, padding=2, fontsize=8, color=INK)
    crowded = max((len(site) for site in group.sites), default=0) * len(group.sites) > 70
    axes.set_xticks(range(len(group.sites)), group.sites, rotation=30 if crowded else 0)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(metric_name(group.metric))
    axes.set_ylim(bottom=0)
