"""The commands `harmofl predict | export | serve-model`: use of a trained model."""

from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.cli.options import Device, Host, Model, ModelSite, Overwrite, bar, check_model, say
from harmofl.errors import ConfigError
from harmofl.types import STATISTICS, Statistics
from harmofl.utils.shell import quoted


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
            path = quoted(one.path) if one.path.name == "bundle" else one.path
            print(f"{one.path.name}: {OPEN[one.path.name].format(path=path)}")
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
    trained = TrainedModel.open(model)
    if trained.volumes:
        raise ConfigError(f"{model}: takes whole volumes, which are not served; use harmofl predict")
    predictor = Predictor(trained, Options(site=site, device=str(device_of(device))))
    app = make_app(predictor, model.resolve().name, Limits(max_mb, max_pixels), host)
    serve_app(app, host, port)
