"""The command `harmofl evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from harmofl.cli.evaluation_output import (
    SURFACE_LEGEND,
    cases_csv,
    json_entry,
    score_table,
    surface_json_entry,
    surface_table,
)
from harmofl.cli.options import Device, Model, bar, check_model, say
from harmofl.errors import ConfigError
from harmofl.types import STATISTICS, Statistics
from harmofl.utils.atomic_files import check_writable, storing, strict_json

if TYPE_CHECKING:
    from harmofl.data.site import Federation
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
        bool, typer.Option("--surface", help="Also Dice, 95 % Hausdorff distance and surface Dice of every structure.")
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
    _check_options(split, statistics, tolerance, surface)
    check_model(model, data)
    _check_files(cases, json)

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
    head = {"metric": trained.metric, "statistics": statistics}
    _write_files(head, found, surfaces, unlike, cases, json)
    _print_results(found, surfaces, unlike, trained.metric, within)


def _check_options(split: str | None, statistics: str, tolerance: float | None, surface: bool) -> None:
    if split not in (None, "train", "val", "test"):
        raise ConfigError(f"--split must be train, val or test, got {split!r}")
    if statistics not in STATISTICS:
        raise ConfigError(f"--statistics must be one of {', '.join(STATISTICS)}, got {statistics!r}")
    if tolerance is not None and not surface:
        raise ConfigError("--tolerance needs --surface, got it alone; add --surface")


def _check_files(cases: Path | None, json: Path | None) -> None:
    for path in filter(None, (cases, json)):
        check_writable(path, file=True)
    if cases and json and cases.resolve() == json.resolve():
        raise ConfigError(f"--cases and --json must be two files, got {cases} for both; change one name")


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


def _write_files(
    head: Mapping[str, str],
    found: Sequence["SiteEvaluation"],
    surfaces: Mapping[str, "SurfaceEvaluation"],
    unlike: Mapping[str, Sequence[str]],
    cases: Path | None,
    json: Path | None,
) -> None:
    metric = head["metric"]
    if cases is not None:
        _write(cases, cases_csv(found, surfaces, metric))
    if json is not None:
        entries = {one.site: json_entry(one, metric, unlike[one.site]) for one in found}
        for name, of_site in surfaces.items():
            entries[name]["surface"] = surface_json_entry(of_site)
        _write(json, strict_json({**head, "sites": entries}, indent=1))


def _write(path: Path, text: str) -> None:
    with storing(path):
        path.write_text(text, encoding="utf-8")


def _print_results(
    found: Sequence["SiteEvaluation"],
    surfaces: Mapping[str, "SurfaceEvaluation"],
    unlike: Mapping[str, Sequence[str]],
    metric: str,
    tolerance: float,
) -> None:
    Console().print(score_table(found, metric))
    for name, of_site in surfaces.items():
        Console().print(surface_table(name, of_site))
    if surfaces:
        units = dict.fromkeys(score.unit for of_site in surfaces.values() for score in of_site.scores)
        print(SURFACE_LEGEND.format(" or ".join(f"{tolerance:g} {unit}" for unit in units)))
    lines = [line for one in found for line in (*one.said, *unlike[one.site])]
    for line in dict.fromkeys([*lines, *(line for of_site in surfaces.values() for line in of_site.said)]):
        print(line)
