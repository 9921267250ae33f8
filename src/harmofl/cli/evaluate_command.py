"""The command `harmofl evaluate`: scores of a trained model, as tables, JSON and CSV."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.cli.options import Device, Model, bar, check_model, say
from harmofl.errors import ConfigError
from harmofl.types import STATISTICS, Statistics
from harmofl.utils.atomic_files import check_writable, storing, strict_json

if TYPE_CHECKING:
    from harmofl.data.site import Federation
    from harmofl.evaluation.surface_summary import StructureScore, StructureSummary
    from harmofl.experiment.trained_model import TrainedModel
    from harmofl.inference.evaluate import SiteEvaluation
    from harmofl.inference.surfaces import SurfaceEvaluation


def evaluate(
    model: Model,
    data: Annotated[Path, typer.Option(help="A folder of sites, or the images of one site.")],
    split: Annotated[
        str | None,
        typer.Option(help="train, val or test; test by default, but all images of sites that did not train."),
    ] = None,
    statistics: Annotated[
        str,
        typer.Option(help="sites: kept from training; images: of these images, without labels; batch: of each batch."),
    ] = "images",
    surface: Annotated[
        bool, typer.Option("--surface", help="Also 95 % Hausdorff distance and surface Dice of every structure.")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Tolerance of surface Dice: mm for volumes, pixels for other images; 2 by default."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 32,
    device: Device = "cpu",
    cases: Annotated[Path | None, typer.Option(help="Write the score of every case to this CSV file.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all results to this JSON file.")] = None,
) -> None:
    r"""Score a trained model at sites, also at those that did not train, with 95 % intervals over patients.

    --surface measures masks on the grid of the files. It needs: pip install 'harmofl\[monai]'.

    Example:
        harmofl evaluate runs/hospitals-harmofl-seed0 --data newcomers --surface --cases cases.csv
    """
    if split not in (None, "train", "val", "test"):
        raise ConfigError(f"--split must be train, val or test, got {split!r}")
    if statistics not in STATISTICS:
        raise ConfigError(f"--statistics must be one of {', '.join(STATISTICS)}, got {statistics!r}")
    if tolerance is not None and not surface:
        raise ConfigError("--tolerance needs --surface, got it alone; add --surface")
    check_model(model, data)
    for path in filter(None, (cases, json)):
        check_writable(path)

    from harmofl.experiment.model_build import device_of
    from harmofl.experiment.trained_model import TrainedModel
    from harmofl.inference.surfaces import TOLERANCE, check_surfaces

    trained, within = TrainedModel.open(model), TOLERANCE if tolerance is None else tolerance
    options = {"statistics": statistics, "batch_size": batch_size, "device": str(device_of(device))}
    if surface:
        check_surfaces(trained, cast(Statistics, statistics), within)
    with bar("reading") as progress:
        federation = trained.read(data, progress, say)
        unlike = {site.name: trained.unlike(site) for site in federation.files}
    found, surfaces = _evaluated(trained, federation, split, within if surface else None, options)
    if cases is not None:
        _write(cases, _cases_csv(found, surfaces, trained.metric))
    if json is not None:
        entries = {one.site: _entry(one, trained.metric, unlike[one.site]) for one in found}
        for name, of_site in surfaces.items():
            entries[name]["surface"] = _surface_entry(of_site)
        _write(json, strict_json({"metric": trained.metric, "statistics": statistics, "sites": entries}, indent=1))
    Console().print(_scores(found, trained.metric))
    for name, of_site in surfaces.items():
        Console().print(_surface_table(name, of_site))
    if surface:
        units = dict.fromkeys(score.unit for of_site in surfaces.values() for score in of_site.scores)
        print(_LEGEND.format(" or ".join(f"{within:g} {unit}" for unit in units)))
    lines = [line for one in found for line in (*one.said, *unlike[one.site])]
    for line in dict.fromkeys([*lines, *(line for of_site in surfaces.values() for line in of_site.said)]):
        print(line)


def _evaluated(
    trained: "TrainedModel", federation: "Federation", split: str | None, tolerance: float | None, options: Any
) -> tuple[list["SiteEvaluation"], dict[str, "SurfaceEvaluation"]]:
    """Return the scores of every site and, with a tolerance, its surface scores by name."""
    from harmofl.inference.evaluate import evaluate_site
    from harmofl.inference.surfaces import evaluate_surfaces

    found, surfaces = [], {}
    with bar("scoring") as progress:
        for k, (site, files) in enumerate(zip(federation.sites, federation.files, strict=True)):
            progress(site.name, k, len(federation.sites))
            found.append(evaluate_site(trained, site, split, **options))
            if tolerance is not None:
                info = federation.info
                surfaces[site.name] = evaluate_surfaces(
                    trained, site, files, info, split, tolerance=tolerance, progress=progress, **options
                )
    return found, surfaces


def _write(path: Path, text: str) -> None:
    with storing(path):
        path.write_text(text, encoding="utf-8")


def _cases_csv(found: Sequence["SiteEvaluation"], surfaces: Mapping[str, "SurfaceEvaluation"], metric: str) -> str:
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


_COLUMNS = ("patient", "image", "structure", "unit", "outcome", "hausdorff95", "surface_dice")


def _rows(scores: Iterable["StructureScore"]) -> list[tuple[Any, ...]]:
    """Return the values of `_COLUMNS`; an undefined score is nan, an infinite distance inf."""
    return [
        (
            *(one.patient, one.image, one.structure, one.unit),
            *(one.score.outcome, one.score.hausdorff95, one.score.surface_dice),
        )
        for one in scores
    ]


def _scores(found: Sequence["SiteEvaluation"], metric: str) -> Table:
    """Return the main score of each site with its interval, as a table for the terminal."""
    from harmofl.report.scores import between

    table = Table("site", "images", "trained", metric, "95 % interval")
    for one in found:
        score, interval = f"{one.scores[metric]:.3f}", between(*one.intervals[metric])
        table.add_row(escape(one.site), str(one.images), "yes" if one.trained else "no", score, interval)
    return table


_LEGEND = (
    "HD95: 95 % Hausdorff distance, mean over files in which the structure was found. Surface Dice: tolerance {}, "
    "0 for a missed or spurious structure, absent ones left out. Below each: 95 % interval over patients."
)


def _surface_table(site: str, one: "SurfaceEvaluation") -> Table:
    """Return the surface scores of a site, a row for each structure, as a table for the terminal."""
    from harmofl.evaluation.surface_summary import summaries

    counts = ("files", "missed", "spurious", "absent")
    table = Table("structure", "HD95", "surface Dice", *counts, title=escape(site), title_justify="left")
    for summary in summaries(one.scores):
        table.add_row(escape(summary.structure), *_cells(summary))
    return table


def _cells(summary: "StructureSummary") -> tuple[str, ...]:
    from harmofl.report.scores import between, number

    def cell(value: float, interval: tuple[float, float], form: str, unit: str = "") -> str:
        return f"{number(value, form)}{unit}\n{between(*interval, form)}"

    distance = cell(summary.hausdorff95, summary.hausdorff95_interval, ".2f", f" {summary.unit}")
    overlap = cell(summary.surface_dice, summary.surface_dice_interval, ".3f")
    counts = (summary.files, summary.missed, summary.spurious, summary.absent)
    return distance, overlap, *map(str, counts)


def _entry(one: "SiteEvaluation", metric: str, unlike: Sequence[str]) -> dict[str, Any]:
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


def _surface_entry(one: "SurfaceEvaluation") -> dict[str, Any]:
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
