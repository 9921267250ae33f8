"""Results of `harmofl evaluate` as tables for the terminal, JSON and CSV."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from harmofl.evaluation.surface_summary import StructureScore, StructureSummary
    from harmofl.inference.evaluate import SiteEvaluation
    from harmofl.inference.surfaces import SurfaceEvaluation


def cases_csv(found: Sequence["SiteEvaluation"], surfaces: Mapping[str, "SurfaceEvaluation"], metric: str) -> str:
    """Return a row for every case and, with surface scores, one for every file and structure, with more columns."""
    from harmofl.data.csv_tables import csv_text

    rows = [(one.site, *row) for one in found for row in zip(one.cases.cases, one.cases.scores, strict=True)]
    if not surfaces:
        return csv_text([("site", "case", metric), *rows])
    columns = ("site", "case", metric, *_COLUMNS)
    plain = [(*row, *("" for _ in _COLUMNS)) for row in rows]
    of_structures = [
        (site, one.case, "", *row)
        for site, of_site in surfaces.items()
        for one, row in zip(of_site.scores, _rows(of_site.scores), strict=True)
    ]
    return csv_text([columns, *plain, *of_structures])


_COLUMNS = ("patient", "image", "structure", "unit", "outcome", "structure_dice", "hausdorff95", "surface_dice")


def _rows(scores: Iterable["StructureScore"]) -> list[tuple[Any, ...]]:
    """Return the values of `_COLUMNS`; an undefined score is nan, an infinite distance inf."""
    return [
        (
            *(one.patient, one.image, one.structure, one.unit),
            *(one.score.outcome, one.score.dice, one.score.hausdorff95, one.score.surface_dice),
        )
        for one in scores
    ]


def score_table(found: Sequence["SiteEvaluation"], metric: str) -> Table:
    """Return the main score of each site with its interval, as a table for the terminal."""
    from harmofl.report.scores import between

    table = Table("site", "images", "trained", metric, "95 % interval")
    for one in found:
        score, interval = f"{one.scores[metric]:.3f}", between(*one.intervals[metric])
        table.add_row(escape(one.site), str(one.images), "yes" if one.trained else "no", score, interval)
    return table


SURFACE_LEGEND = (
    "HD95: 95 % Hausdorff distance, mean over files in which the structure was found. Surface Dice: tolerance {}. "
    "Dice and surface Dice: 0 for a missed or spurious structure, absent ones left out. Below each: "
    "95 % interval over patients."
)


def surface_table(site: str, one: "SurfaceEvaluation") -> Table:
    """Return the surface scores of a site, a row for each structure, as a table for the terminal."""
    from harmofl.evaluation.surface_summary import summaries

    counts = ("files", "missed", "spurious", "absent")
    table = Table("structure", "Dice", "HD95", "surface Dice", *counts, title=escape(site), title_justify="left")
    for summary in summaries(one.scores):
        table.add_row(escape(summary.structure), *_cells(summary))
    return table


def _cells(summary: "StructureSummary") -> tuple[str, ...]:
    from harmofl.report.scores import between, number

    def cell(value: float, interval: tuple[float, float], form: str, unit: str = "") -> str:
        return f"{number(value, form)}{unit}\n{between(*interval, form)}"

    distance = cell(summary.hausdorff95, summary.hausdorff95_interval, ".2f", f" {summary.unit}")
    surface = cell(summary.surface_dice, summary.surface_dice_interval, ".3f")
    dice = cell(summary.dice, summary.dice_interval, ".3f")
    counts = (summary.files, summary.missed, summary.spurious, summary.absent)
    return dice, distance, surface, *map(str, counts)


def json_entry(one: "SiteEvaluation", metric: str, unlike: Sequence[str]) -> dict[str, Any]:
    """Return the results of a site for the JSON file; a case has one score, or one for each of its slices."""
    cases: dict[str, list[float]] = {}
    for case, score in zip(one.cases.cases, one.cases.scores, strict=True):
        cases.setdefault(case, []).append(score)
    single = len(cases) == len(one.cases.cases)
    return {
        "images": one.images,
        "trained": one.trained,
        "scores": one.scores,
        "interval": one.intervals[metric],
        "intervals": one.intervals,
        "used": one.said,
        "unlike": unlike,
        "cases": {case: scores[0] if single else scores for case, scores in cases.items()},
    }


def surface_json_entry(one: "SurfaceEvaluation") -> dict[str, Any]:
    """Return the surface scores of a site for the JSON file, in which an infinite or undefined score is null."""
    from dataclasses import asdict

    from harmofl.evaluation.surface_summary import summaries

    columns = ("case", *_COLUMNS)
    return {
        "tolerance": one.tolerance,
        "structures": [asdict(summary) for summary in summaries(one.scores)],
        "files": [
            dict(zip(columns, (score.case, *row), strict=True))
            for score, row in zip(one.scores, _rows(one.scores), strict=True)
        ],
        "used": one.said,
    }
