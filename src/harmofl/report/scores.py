"""Groups of comparable runs, and the tables of their scores."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harmofl.experiment.finished_run import Run, ScoreTable

DASH = "\N{EN DASH}"
MANY = 8
"""Largest number of sites that are columns of a table; more sites become rows."""
SUMMARIES = ("Mean", "Worst", "Std")
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
    def unseen(self) -> tuple[str, ...]:
        """Sites that did not train and were tested in any run."""
        results = [run.result for run in self.runs if run.result]
        return tuple(dict.fromkeys(site for result in results for site in result.unseen if site not in self.sites))

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs that have a result."""
        return tuple(run for run in self.runs if run.result)


@dataclass(frozen=True)
class Cell:
    """One printed number of a table."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class TableRowCells:
    """One row of a table, for a run or a site; `note` replaces missing cells; `index` is the colour."""

    label: str
    index: int | None
    cells: tuple[Cell, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class TextTable:
    """A table; the last `summaries` columns are set apart."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRowCells, ...]
    corner: str = "Run"
    summaries: int = 3


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group the runs that share the main metric and the sites, in the given order."""
    found: dict[tuple[str, frozenset[str]], list[Run]] = {}
    for run in runs:
        found.setdefault((run.main_metric, frozenset(run.sites)), []).append(run)
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


def scores_of_run(run: Run, metric: str) -> dict[str, float]:
    """Return a metric of the chosen model on the test images of every site, unseen sites last."""
    if run.result is None:
        return {}
    found = {**run.result.test, **run.result.unseen}
    return {site: found[site].get(metric, math.nan) for site in found}


def interval_at(run: Run, site: str) -> tuple[float, float]:
    """Return the 95 % interval of the main metric over test patients; NaN if there is none."""
    return run.intervals.get(site, (math.nan, math.nan))


def between(low: float, high: float) -> str:
    """Format an interval; a dash if an end is not finite."""
    return f"{number(low)} \N{EN DASH} {number(high)}" if math.isfinite(low) and math.isfinite(high) else DASH


def site_table(run: Run, metric: str) -> TextTable:
    """Return one run's test score at every site, with its interval and its numbers of images and patients."""
    rows = []
    for site, value in scores_of_run(run, metric).items():
        images = run.result.num_images.get(site, {}).get("test") if run.result else None
        patients = len(set(run.cases[site].patients)) if site in run.cases else None
        counts = [DASH if count is None else str(count) for count in (images, patients)]
        texts = (number(value), between(*interval_at(run, site)), *counts)
        trained = run.result is not None and site in run.result.test
        rows.append(TableRowCells(site if trained else UNSEEN.format(site), None, tuple(map(Cell, texts))))
    values = site_values(run.result.test, list(run.result.test), metric) if run.result else []
    for name, value in zip(SUMMARIES, _summary(values), strict=True):
        rows.append(TableRowCells(name, None, tuple(map(Cell, (number(value), "", "", "")))))
    title = f"{metric_name(metric)} on test images of every site"
    return TextTable(title, (metric_name(metric), "95 % interval", "Images", "Patients"), tuple(rows), "Site", 0)


def score_table(group: Group, metric: str, *, mark_best: bool = False) -> TextTable:
    """Return every run's test scores per site with their mean, worst and standard deviation."""
    return _table(group, metric, f"{metric_name(metric)} on test images", part="test", mark_best=mark_best)


def validation_table(group: Group) -> TextTable:
    """Return the main metric on validation images at the chosen round of each run."""
    title = f"{metric_name(group.metric)} on validation images, at the chosen round"
    return _table(group, group.metric, title, part="val")


def further_metrics(group: Group) -> list[str]:
    """Return the metrics of the test scores other than the main one."""
    results = [run.result for run in group.finished if run.result]
    names = [name for result in results for scores in result.test.values() for name in scores]
    return [name for name in dict.fromkeys(names) if name != group.metric]


def _table(group: Group, metric: str, title: str, *, part: str, mark_best: bool = False) -> TextTable:
    values: dict[int, list[float]] = {}
    unseen = group.unseen if part == "test" else ()
    for index, run in enumerate(group.runs):
        if run.result:
            scores = run.result.test if part == "test" else run.result.val
            own = site_values(scores, group.sites, metric)
            values[index] = [*own, *_summary(own), *site_values(run.result.unseen, unseen, metric)]
    columns = (*group.sites, *SUMMARIES, *(UNSEEN.format(site) for site in unseen))
    best = _best_texts(list(values.values()), len(group.sites) + 2) if mark_best and len(values) > 1 else []
    rows = [_row(run, index, values.get(index), best) for index, run in enumerate(group.runs)]
    table = TextTable(title, columns, tuple(rows), summaries=len(SUMMARIES) + len(unseen))
    return table if len(group.sites) <= MANY else _sites_down(table)


def _sites_down(table: TextTable) -> TextTable:
    """Transpose a table to one row a site, for many sites."""
    rows = [
        TableRowCells(name, None, tuple(row.cells[k] if row.cells else Cell(DASH) for row in table.rows))
        for k, name in enumerate(table.columns)
    ]
    return TextTable(table.title, tuple(row.label for row in table.rows), tuple(rows), "Site", 0)


def _summary(values: list[float]) -> list[float]:
    whole = all(math.isfinite(value) for value in values)
    worst = min(values) if whole and values else math.nan
    spread = statistics.stdev(values) if whole and len(values) > 1 else math.nan
    return [mean_score(values), worst, spread]


def _best_texts(rows: list[list[float]], spread: int) -> list[str]:
    """Return the largest number of every column as text; a dash for column `spread`."""
    columns = list(zip(*rows, strict=True))
    best = [number(max((v for v in column if math.isfinite(v)), default=math.nan)) for column in columns]
    return [*best[:spread], DASH, *best[spread + 1 :]]


def _row(run: Run, index: int, values: list[float] | None, best: list[str]) -> TableRowCells:
    if values is None:
        return TableRowCells(run.label, index, note=f"not finished: {run.progress}")
    texts = [number(value) for value in values]
    marks = best or [DASH] * len(texts)
    cells = [Cell(text, text == mark != DASH) for text, mark in zip(texts, marks, strict=True)]
    return TableRowCells(run.label, index, tuple(cells))
