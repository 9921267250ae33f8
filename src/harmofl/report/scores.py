"""Groups of comparable runs, and the tables of their scores."""

import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from harmofl.experiment.finished_run import Run
from harmofl.experiment.run_files import Result, ScoreTable
from harmofl.utils.grouping import grouped

DASH = "\N{EN DASH}"
MANY = 8
"""Largest number of sites that are columns of a table; more sites become rows."""
SUMMARIES = ("Mean", "Worst", "Std")
PARTS = {"test": "test images", "val": "validation images, at the chosen round"}
UNSEEN = "{} (unseen)"
"""Label of a site that did not train."""
NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "auc": "AUC",
    "f1": "F1",
    "hd95": "HD95",
    "slice_dice_released": "Slice Dice (as released)",
}


@dataclass(frozen=True)
class Group:
    """Comparable runs, with the same main metric and the same sites."""

    metric: str
    sites: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def results(self) -> list[tuple[Run, Result]]:
        """The runs that have a result, each with its result."""
        return [(run, run.result) for run in self.runs if run.result]

    @property
    def unseen(self) -> tuple[str, ...]:
        """Sites that did not train and were tested in any run."""
        found = dict.fromkeys(site for _, result in self.results for site in result.unseen)
        return tuple(site for site in found if site not in self.sites)

    @property
    def finished(self) -> list[Run]:
        """The runs that have a result."""
        return [run for run, _ in self.results]


@dataclass(frozen=True)
class Cell:
    """One printed number of a table."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class TextRow:
    """One row of a table, for a run or a site; `note` replaces missing cells; `index` is the colour."""

    label: str
    cells: tuple[Cell, ...] = ()
    index: int | None = None
    note: str = ""


def text_row(label: str, texts: Iterable[str], index: int | None = None) -> TextRow:
    """Return a row in which no cell is marked."""
    return TextRow(label, tuple(map(Cell, texts)), index)


@dataclass(frozen=True)
class TextTable:
    """A table; the last `summaries` columns are set apart."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[TextRow, ...]
    corner: str = "Run"
    summaries: int = 3


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group the runs that share the main metric and the sites, in the given order."""
    found = grouped(runs, lambda run: (run.main_metric, frozenset(run.sites)))
    return [Group(metric, members[0].sites, tuple(members)) for (metric, _), members in found.items()]


def metric_name(metric: str) -> str:
    """Return the display name of a metric, capitalized."""
    words = metric_words(metric)
    return words[:1].upper() + words[1:]


def metric_words(metric: str) -> str:
    """Return the display name of a metric for use inside a sentence."""
    return NAMES.get(metric, metric.replace("_", " "))


def site_values(scores: ScoreTable, sites: Sequence[str], metric: str) -> list[float]:
    """Return one value per site; NaN if missing."""
    return [scores.get(site, {}).get(metric, math.nan) for site in sites]


def mean_score(values: Sequence[float]) -> float:
    """Return the mean; NaN if a value is missing, so that only means over the same sites are compared."""
    return statistics.fmean(values) if values else math.nan


def number(value: float, form: str = ".3f") -> str:
    """Format with three decimals or as `form` says; an en dash for a value that is not finite."""
    return format(value, form) if math.isfinite(value) else DASH


def duration(seconds: float) -> str:
    """Format a duration in seconds, as in "42 s", "12 min" or "3 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def estimated_end(now: float, seconds: float) -> str:
    """Return when something ends that takes so many seconds from now, as in "about 14:05, in 12 min"."""
    end = time.localtime(now + seconds)
    today = end[:3] == time.localtime(now)[:3]
    return f"about {time.strftime('%H:%M' if today else '%a %d %b %H:%M', end)}, in {duration(seconds)}"


def scores_of_run(run: Run, metric: str) -> dict[str, float]:
    """Return a metric of the chosen model on the test images of every site, unseen sites last."""
    if run.result is None:
        return {}
    found = {**run.result.test, **run.result.unseen}
    return {site: found[site].get(metric, math.nan) for site in found}


def interval_at(run: Run, site: str) -> tuple[float, float]:
    """Return the 95 % interval of the main metric over test patients; NaN if there is none."""
    return run.intervals.get(site, (math.nan, math.nan))


def between(low: float, high: float, form: str = ".3f") -> str:
    """Format an interval, its ends as `number` does; a dash if an end is not finite."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"{number(low, form)} \N{EN DASH} {number(high, form)}" if known else DASH


def site_table(run: Run, result: Result, metric: str) -> TextTable:
    """Return one run's test score at every site, with its interval and its numbers of images and patients."""
    rows = []
    for site, value in scores_of_run(run, metric).items():
        images = result.num_images.get(site, {}).get("test", DASH)
        patients = len(set(run.cases[site].patients)) if site in run.cases else DASH
        texts = (number(value), between(*interval_at(run, site)), str(images), str(patients))
        rows.append(text_row(site if site in result.test else UNSEEN.format(site), texts))
    values = site_values(result.test, list(result.test), metric)
    for name, value in zip(SUMMARIES, _summary(values), strict=True):
        rows.append(text_row(name, (number(value), "", "", "")))
    title = f"{metric_name(metric)} on test images of every site"
    return TextTable(title, (metric_name(metric), "95 % interval", "Images", "Patients"), tuple(rows), "Site", 0)


def further_metrics(group: Group) -> list[str]:
    """Return the metrics of the test scores other than the main one."""
    names = [name for _, result in group.results for scores in result.test.values() for name in scores]
    return [name for name in dict.fromkeys(names) if name != group.metric]


def score_table(
    group: Group, metric: str, part: Literal["test", "val"] = "test", *, mark_best: bool = False
) -> TextTable:
    """Return every run's scores per site with their mean, worst and standard deviation.

    Args:
        group: the runs, one a row.
        metric: the score.
        part: "test", with the unseen sites, or "val", at the chosen round of each run.
        mark_best: mark the best score of each column if there are several runs.
    """
    values: dict[str, list[float]] = {}
    unseen = group.unseen if part == "test" else ()
    for run, result in group.results:
        own = site_values(getattr(result, part), group.sites, metric)
        values[run.label] = [*own, *_summary(own), *site_values(result.unseen, unseen, metric)]
    columns = (*group.sites, *SUMMARIES, *(UNSEEN.format(site) for site in unseen))
    best = [DASH] * len(columns)
    if mark_best and len(values) > 1:
        scores = zip(*values.values(), strict=True)
        best = [number(max(filter(math.isfinite, column), default=math.nan)) for column in scores]
        best[len(group.sites) + SUMMARIES.index("Std")] = DASH
    rows = tuple(_row(run, index, values.get(run.label), best) for index, run in enumerate(group.runs))
    title = f"{metric_name(metric)} on {PARTS[part]}"
    table = TextTable(title, columns, rows, summaries=len(SUMMARIES) + len(unseen))
    return table if len(group.sites) <= MANY else _sites_down(table)


def _sites_down(table: TextTable) -> TextTable:
    """Transpose a table to one row a site, for many sites."""
    rows = [
        TextRow(name, tuple(row.cells[k] if row.cells else Cell(DASH) for row in table.rows))
        for k, name in enumerate(table.columns)
    ]
    return TextTable(table.title, tuple(row.label for row in table.rows), tuple(rows), "Site", 0)


def _summary(values: list[float]) -> list[float]:
    whole = all(math.isfinite(value) for value in values)
    worst = min(values) if whole and values else math.nan
    spread = statistics.stdev(values) if whole and len(values) > 1 else math.nan
    return [mean_score(values), worst, spread]


def _row(run: Run, index: int, values: list[float] | None, best: list[str]) -> TextRow:
    if values is None:
        return TextRow(run.label, (), index, note=f"not finished: {run.progress}")
    marked = zip(map(number, values), best, strict=True)
    return TextRow(run.label, tuple(Cell(text, text == mark != DASH) for text, mark in marked), index)
