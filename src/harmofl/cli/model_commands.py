"""The commands `harmofl evaluate | predict | export | serve-model`: use of a trained model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.cli.options import Device, Host, Model, ModelSite, Overwrite, bar, check_model, say
from harmofl.errors import ConfigError
from harmofl.types import STATISTICS, Statistics
from harmofl.utils.atomic_files import check_writable, storing, strict_json

if TYPE_CHECKING:
    from harmofl.inference.evaluate import SiteEvaluation


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
    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 32,
    device: Device = "cpu",
    cases: Annotated[Path | None, typer.Option(help="Write the score of every case to this CSV file.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all results to this JSON file.")] = None,
) -> None:
    """Score a trained model at sites, also at those that did not train, with 95 % intervals over patients.

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
        _write(cases, _cases_csv(found, trained.metric))
    if json is not None:
        entries = {one.site: _entry(one, trained.metric, unlike[one.site]) for one in found}
        _write(json, strict_json({"metric": trained.metric, "statistics": statistics, "sites": entries}, indent=1))
    Console().print(_scores(found, trained.metric))
    for line in dict.fromkeys(line for one in found for line in (*one.said, *unlike[one.site])):
        print(line)


def _write(path: Path, text: str) -> None:
    with storing(path):
        path.write_text(text, encoding="utf-8")


def _cases_csv(found: Sequence["SiteEvaluation"], metric: str) -> str:
    from harmofl.data.csv_tables import csv_text

    rows = [(one.site, *row) for one in found for row in zip(one.cases.cases, one.cases.scores, strict=True)]
    return csv_text([("site", "case", metric), *rows])


def _scores(found: Sequence["SiteEvaluation"], metric: str) -> Table:
    """Return the main score of each site with its interval, as a table for the terminal."""
    from harmofl.report.scores import between

    table = Table("site", "images", "trained", metric, "95 % interval")
    for one in found:
        score, interval = f"{one.scores[metric]:.3f}", between(*one.intervals[metric])
        table.add_row(escape(one.site), str(one.images), "yes" if one.trained else "no", score, interval)
    return table


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


def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of such: PNG, JPEG, TIFF, NIfTI, DICOM.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks, or for predictions.csv.")],
    overlays: Annotated[bool, typer.Option("--overlays", help="Also write images with outlines.")] = False,
    site: ModelSite = "",
    statistics: Annotated[str, typer.Option(help="sites: kept from training; images: of the given images.")] = "sites",
    tiles: Annotated[bool, typer.Option("--tiles", help="Overlapping windows at the image's own resolution.")] = False,
    overlap: Annotated[float, typer.Option(help="Overlap of two windows as a fraction, from 0 to below 1.")] = 0.25,
    batch_size: Annotated[int, typer.Option(min=1, help="Images or windows per batch.")] = 16,
    device: Device = "cpu",
    overwrite: Overwrite = False,
) -> None:
    """Write masks, or class probabilities, for images without labels; masks have the size of their image.

    A PNG, JPEG or TIFF gives a PNG, a NIfTI volume a NIfTI mask of the same geometry, a DICOM series a DICOM SEG.

    Examples:
        harmofl predict runs/hospitals-harmofl-seed0 newcomers/ --out predicted --overlays

        harmofl predict runs/hospitals-harmofl-seed0 slide.tif --out predicted --tiles
    """
    from harmofl.inference.prediction.inputs import check_paths

    if statistics not in STATISTICS:
        raise ConfigError(f"--statistics must be sites or images, got {statistics!r}")
    check_model(model)
    check_paths(images)

    from harmofl.data.checks.problem import Problem, alike
    from harmofl.experiment.model_build import device_of
    from harmofl.experiment.trained_model import TrainedModel
    from harmofl.inference.prediction.predict import predict_files
    from harmofl.inference.prediction.predictor import Options

    where = str(device_of(device))
    options = Options(site, cast(Statistics, statistics), where, batch_size, tiles, overlap)
    trained = TrainedModel.open(model)
    with bar("predicting") as progress:
        done = predict_files(
            trained, images, out, options, overlays=overlays, overwrite=overwrite, progress=progress, told=say
        )
    pace = f"{done.images / done.seconds:.1f} images or slices a second" if done.images else "no image predicted"
    print(f"{len(done.written)} files in {out}, {pace}")
    for line in done.said:
        print(line)
    named = (line.partition(": ") for line in done.failed)
    for problem in alike([Problem("error", "", file, message) for file, _, message in named]):
        say(f"harmofl: {problem}")
    if done.failed:
        raise typer.Exit(1)


OPEN = {
    "model.onnx": 'onnxruntime.InferenceSession("{path}").run(None, {{"image": images}})',
    "model.pt2": 'torch.export.load("{path}").module()(images)',
    "bundle": "cd {path} && python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES",
}


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="The folder to write into.")],
    formats: Annotated[
        str | None,
        typer.Option("--format", help="Comma-separated: onnx, pt2, monai, card; all that are installed by default."),
    ] = None,
    site: ModelSite = "",
    overwrite: Overwrite = False,
) -> None:
    r"""Write a trained model as ONNX, torch.export file, MONAI bundle and model card, each checked against torch.

    Files include amplitude normalization and all statistics. ONNX needs: pip install 'harmofl\[export]'.

    Example:
        harmofl export runs/hospitals-harmofl-seed0 --out exported --format onnx,card
    """
    check_model(model)

    from harmofl.inference.export.exporting import export_model

    chosen = None if formats is None else [one.strip() for one in formats.split(",")]
    with bar("exporting") as progress:
        progress(str(model), 0, 1)
        files, left = export_model(model, out, chosen, site=site, overwrite=overwrite)
    table = Table("file", "MB", "largest difference to torch")
    for one in files:
        difference = "" if one.difference is None else f"{one.difference:.1e}"
        table.add_row(escape(str(one.path)), f"{one.size / 1e6:.2f}", difference)
    Console().print(table)
    for one in files:
        if one.path.name in OPEN:
            print(f"{one.path.name}: {OPEN[one.path.name].format(path=one.path)}")
    for line in left:
        print(line)


def serve_model(
    model: Model,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    max_mb: Annotated[float, typer.Option(min=0.001, help="Largest image file, in megabytes.")] = 20,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest number of pixels of an image.")] = 50_000_000,
    site: ModelSite = "",
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the model.")] = 1,
) -> None:
    r"""Serve a trained model over HTTP: a page for images, an API for programs, and its description under /docs.

    Images are not stored. There is no login: put a server with a login in front of it before others can reach it.
    Needs: pip install 'harmofl\[serve]'.

    Example:
        harmofl serve-model runs/hospitals-harmofl-seed0 --port 8000
    """
    check_model(model)

    import torch

    from harmofl.experiment.model_build import device_of
    from harmofl.experiment.trained_model import TrainedModel
    from harmofl.inference.prediction.predictor import Options, Predictor
    from harmofl.inference.serving.service import Limits, make_app, serve_app

    torch.set_num_threads(threads)
    predictor = Predictor(TrainedModel.open(model), Options(site=site, device=str(device_of(device))))
    app = make_app(predictor, model.resolve().name, Limits(max_mb, max_pixels), host)
    serve_app(app, host, port)
