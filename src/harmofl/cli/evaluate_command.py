"""The command `harmofl evaluate`: what a trained model is worth at a site."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.cli.options import bar, check_model, say
from harmofl.errors import ConfigError
from harmofl.types import STATISTICS, Statistics
from harmofl.utils.atomic_files import check_writable

if TYPE_CHECKING:
    from harmofl.inference.evaluate import SiteEvaluation


def evaluate(
    model: Annotated[Path, typer.Argument(help="A run folder, or its model/ folder alone.")],
    data: Annotated[Path, typer.Option(help="A folder of sites, or the images of one site.")],
    split: Annotated[
        str | None, typer.Option(help="train, val or test; test, and all images of sites that did not train.")
    ] = None,
    statistics: Annotated[
        str,
        typer.Option(help="sites: kept from training; images: of these, without labels; batch: of each batch."),
    ] = "images",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")] = "cpu",
    cases: Annotated[Path | None, typer.Option(help="Write the score of every case here, as CSV.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all scores, intervals and what was used here.")] = None,
) -> None:
    """Score a trained model at sites, also at those that never took part, with 95 % intervals over patients.

    Example:
        harmofl evaluate runs/hospitals-harmofl-seed0 --data newcomers --cases cases.csv
    """
    if split not in (None, "train", "val", "test"):
        raise ConfigError(f"--split must be train, val or test, got {split!r}")
    if statistics not in STATISTICS:
        raise ConfigError(f"--statistics must be one of {', '.join(STATISTICS)}, got {statistics!r}")
    check_model(model, data)
    for path in filter(None, (cases, json)):
        check_writable(path)

    from harmofl.experiment.model_build import device_of
    from harmofl.experiment.trained_model import TrainedModel
    from harmofl.inference.evaluate import evaluate_site

    trained, where = TrainedModel.open(model), str(device_of(device))
    with bar("reading") as progress:
        sites, unlike = trained.read(data, progress, say)
    with bar("scoring") as progress:
        found = []
        for k, site in enumerate(sites):
            progress(site.name, k, len(sites))
            found.append(evaluate_site(trained, site, split, cast(Statistics, statistics), batch_size, where))
    if cases is not None:
        rows = [(one.site, *row) for one in found for row in zip(one.cases.cases, one.cases.scores, strict=True)]
        _write(cases, rows, trained.metric)
    if json is not None:
        _write_json(json, found, trained.metric, statistics, unlike)
    console = Console()
    table = Table("site", "images", "trained", trained.metric, "95 % interval")
    for one in found:
        value, between = f"{one.scores[trained.metric]:.3f}", _between(*one.intervals[trained.metric])
        table.add_row(escape(one.site), str(one.images), "yes" if one.trained else "no", value, between)
    console.print(table)
    for line in dict.fromkeys(line for one in found for line in (*one.said, *unlike[one.site])):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _between(low: float, high: float) -> str:
    """Return the interval as text; a dash if there is none, as for a single patient."""
    return "-" if math.isnan(low) else f"{low:.3f} - {high:.3f}"


def _by_case(cases: "Sequence[str]", scores: "Sequence[float]") -> dict[str, float | list[float]]:
    """Return the score of each case, or the scores of its slices for a metric of slices."""
    found: dict[str, list[float]] = {}
    for case, score in zip(cases, scores, strict=True):
        found.setdefault(case, []).append(score)
    return {case: of_case[0] if len(found) == len(cases) else of_case for case, of_case in found.items()}


def _write_json(
    path: Path, found: "Sequence[SiteEvaluation]", metric: str, statistics: str, unlike: "Mapping[str, Sequence[str]]"
) -> None:
    from harmofl.utils.atomic_files import storing, strict_json

    sites = {
        one.site: {
            "images": one.images,
            "trained": one.trained,
            "scores": one.scores,
            "interval": one.intervals[metric],
            "intervals": one.intervals,
            "used": one.said,
            "unlike": unlike[one.site],
            "cases": _by_case(one.cases.cases, one.cases.scores),
        }
        for one in found
    }
    text = strict_json({"metric": metric, "statistics": statistics, "sites": sites}, indent=1)
    with storing(path):
        path.write_text(text, encoding="utf-8")


def _write(path: Path, rows: list[tuple[str, str, float]], metric: str) -> None:
    from harmofl.utils.atomic_files import storing

    with storing(path), path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("site", "case", metric), *rows])
