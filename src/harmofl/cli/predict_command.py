"""The command `harmofl predict`: a trained model's answers for images without labels."""

import sys
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from harmofl.cli.options import bar, check_model, say
from harmofl.errors import ConfigError
from harmofl.types import STATISTICS, Statistics


def predict(
    model: Annotated[Path, typer.Argument(help="A run folder, or its model/ folder alone.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of such: PNG, JPEG, TIFF, NIfTI, DICOM.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks, or for predictions.csv.")],
    overlays: Annotated[bool, typer.Option("--overlays", help="Also write pictures with outlines.")] = False,
    site: Annotated[str, typer.Option(help="Use what this training site uses; else the mean over the sites.")] = "",
    statistics: Annotated[str, typer.Option(help="sites: kept from training; images: of the images given.")] = "sites",
    tiles: Annotated[bool, typer.Option("--tiles", help="Overlapping windows at the image's own resolution.")] = False,
    overlap: Annotated[float, typer.Option(help="Share that windows have in common, from 0 to below 1.")] = 0.25,
    batch_size: Annotated[int, typer.Option(min=1, help="Images or windows a batch.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Write masks, or class probabilities, for images without labels, on the pixels of each image.

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
    from harmofl.inference.prediction.predict import predict_files as carry_out
    from harmofl.inference.prediction.predictor import Options

    where = str(device_of(device))
    options = Options(site, cast(Statistics, statistics), where, batch_size, tiles, overlap)
    with bar("predicting") as progress:
        done = carry_out(
            TrainedModel.open(model),
            images,
            out,
            options,
            overlays=overlays,
            overwrite=overwrite,
            progress=progress,
            told=say,
        )
    console = Console()
    pace = f"{done.images / done.seconds:.1f} images or slices a second" if done.images else "nothing"
    console.print(f"{len(done.written)} files in {out}, {pace}", highlight=False, soft_wrap=True, markup=False)
    for line in done.said:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    named = (line.partition(": ") for line in done.failed)
    for problem in alike([Problem("error", "", file, message) for file, _, message in named]):
        print(f"harmofl: {problem}", file=sys.stderr)
    if done.failed:
        raise typer.Exit(1)
