"""A comparison as one self-contained HTML page, with a folder of its charts and their numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harmofl.comparison.charts import curves, overview_chart
from harmofl.comparison.gains import cost_against_gain, site_differences
from harmofl.comparison.outcomes import Outcome
from harmofl.comparison.score_table import COSTS, Comparison, header, mean_and_spread, rows, sites_of
from harmofl.comparison.statistics import FEWEST_SEEDS, Difference
from harmofl.report import vega
from harmofl.report.page_files import files_of, write_page
from harmofl.report.scores import MANY, Cell, TextRow, TextTable, metric_words
from harmofl.report.templates import template_of
from harmofl.report.vega import Chart
from harmofl.utils.atomic_files import write_atomic


@dataclass(frozen=True)
class Advice:
    """The recommendation of `harmofl recommend`, for the top of its page.

    Args:
        lines: the recommendation in sentences.
        title: title of the table.
        columns: its column names.
        rows: the validation scores of each candidate, as text.
    """

    lines: Sequence[str]
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_comparison(
    comparison: Comparison, out: Path, swept: Chart | None = None, advice: Advice | None = None
) -> Path:
    """Write report.html, the folder report-files, and comparison.png and .svg.

    Args:
        comparison: the comparison to write.
        out: the folder of the comparison.
        swept: the chart of a sweep, if there is one.
        advice: a recommendation, if there is one.

    Returns:
        The path of report.html.

    Raises:
        StorageError: if a file cannot be written.
    """
    first = overview_chart(comparison)
    found = [swept, first, curves(comparison), site_differences(comparison)]
    charts = [chart for chart in found if chart is not None]
    costs = cost_against_gain(comparison)
    page = out / "report.html"
    write_page(page, _render(comparison, charts, costs, advice), [*charts, *costs])
    for kind in ("png", "svg"):
        write_atomic(out / f"comparison.{kind}", (files_of(page) / f"{first.name}.{kind}").read_bytes())
    return page


def _render(comparison: Comparison, charts: Sequence[Chart], costs: Sequence[Chart], advice: Advice | None) -> str:
    curve = next((chart for chart in charts if chart.name == "curves"), None)
    sites = list(dict.fromkeys(row["site"] for row in curve.rows)) if curve else []
    return template_of("comparison.html").render(
        title=f"Comparison of {len(comparison.outcomes)} methods at {len(sites_of(comparison))} sites",
        advice=advice,
        outcome=comparison_headline(comparison),
        tables=_tables(comparison),
        notes=[note for note in comparison.notes if note not in comparison.failed],
        failed=comparison.failed,
        sites=[site for site in sites if site != vega.ALL],
        charts=charts,
        differences=any(chart.name == "differences" for chart in charts),
        costs=costs,
        runs=[(o.variant.label, o.variant.folder, ", ".join(map(str, o.seeds))) for o in comparison.outcomes],
        scripts=[vega.script(), vega.starter()],
    )


def _tables(comparison: Comparison) -> list[TextTable]:
    """Return the score table (sites as rows if there are many) and the cost table."""
    whole = [[Cell(name) for name in header(comparison)], *rows(comparison)]
    scores = [row[: -len(COSTS)] for row in whole]
    costs = [[row[0], *row[-len(COSTS) :]] for row in whole]
    if len(sites_of(comparison)) > MANY:
        scores = [list(column) for column in zip(*scores, strict=True)]
    title = comparison.title[:1].upper() + comparison.title[1:]
    return [_text_table(title, scores), _text_table("Cost of each method", costs)]


def _text_table(title: str, cells: Sequence[Sequence[Cell]]) -> TextTable:
    (corner, *columns), *body = cells
    found = tuple(TextRow(label.text, tuple(row)) for label, *row in body)
    return TextTable(title, tuple(cell.text for cell in columns), found, corner.text, 0)


def comparison_headline(comparison: Comparison) -> str:
    """Return sentences on the best method and the significance of its lead over the baseline."""
    whole = len(sites_of(comparison))
    known = [
        o
        for o in comparison.outcomes
        if not o.is_reference and len(o.sites) == whole and math.isfinite(o.average.mean())
    ]
    if not known:
        return "No method has a score at every site."
    best = max(known, key=lambda o: float(o.average.mean()))
    score = metric_words(comparison.metric)
    seeds = f"{len(best.seeds)} seed{'s' * (len(best.seeds) != 1)}"
    worst = mean_and_spread(best.worst)
    found = f"best mean test {score}, {mean_and_spread(best.average)} over {seeds}"
    level = sum(f"{o.average.mean():.3f}" == f"{best.average.mean():.3f}" for o in known)
    if level > 1:
        said = [f"{level} of {len(known)} methods share the {found}.", *_elsewhere(comparison, known)]
    else:
        first = f"{best.variant.label} has the {found}; its worst site has {worst}."
        said = [first, *_against(comparison, comparison.differences, best), *_elsewhere(comparison, known)]
    said += _references(comparison)
    if len(known) > 2:
        said.append("The best of several methods is partly due to chance; choose by validation scores.")
    return " ".join(said)


def _elsewhere(comparison: Comparison, known: Sequence[Outcome]) -> list[str]:
    """Return sentences on the best method at the unseen sites."""
    there = [o for o in known if len(o.unseen) == len(comparison.unseen) and np.isfinite(o.test_unseen).all()]
    if not comparison.unseen or not there:
        return []
    best = max(there, key=lambda o: float(o.average_unseen.mean()))
    where = f"{', '.join(comparison.unseen)}, which never trained"
    first = f"At {where}, {best.variant.label} is best with {mean_and_spread(best.average_unseen)}."
    return [first, *_against(comparison, comparison.differences_unseen, best)]


def _against(comparison: Comparison, differences: Sequence[Difference | None], best: Outcome) -> list[str]:
    found = differences[[o is best for o in comparison.outcomes].index(True)]
    if found is None or not math.isfinite(found.low):
        return []
    said = f"The difference to {comparison.baseline} is {found.mean:+.3f}"
    between = f"{found.low:+.3f} to {found.high:+.3f}"
    if found.seeds < FEWEST_SEEDS:
        return [f"{said} ({comparison.interval_over}: {between}). {comparison.chance}"]
    chance = "larger" if found.clear else "not larger"
    return [f"{said}, 95 % interval {between}: {chance} than the variation over seeds and test patients."]


def _references(comparison: Comparison) -> list[str]:
    """Return a sentence with the scores of the references (`local` and `pooled` training)."""
    found = [o for o in comparison.outcomes if o.is_reference and math.isfinite(o.average.mean())]
    told = [f"{o.variant.label} {mean_and_spread(o.average)}" for o in found]
    return [f"For comparison, without federated training: {', '.join(told)}."] if told else []
