"""The command `harmofl serve-model`: a trained model as a small HTTP service."""

from pathlib import Path
from typing import Annotated

import typer

from harmofl.cli.options import check_model


def serve_model(
    model: Annotated[Path, typer.Argument(help="A run folder, or its model/ folder alone.")],
    host: Annotated[str, typer.Option(help="Where to serve; 127.0.0.1 is for this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the service.")] = 8000,
    max_mb: Annotated[float, typer.Option(min=0.001, help="Largest image file, in megabytes.")] = 20,
    max_pixels: Annotated[int, typer.Option(min=1, help="Most pixels of an image.")] = 50_000_000,
    site: Annotated[str, typer.Option(help="Use what this training site uses; else the mean over the sites.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the model.")] = 1,
) -> None:
    r"""Serve a trained model: a page to drop images on, answers for programs, and their description under /docs.

    Images are not kept. There is no login: put a server with one before it where others can reach it.
    Needs: pip install 'harmofl\[serve]'.

    Example:
        harmofl serve-model runs/hospitals-harmofl-seed0 --port 8000
    """
    check_model(model)

    import torch

    from harmofl.experiment.model_build import device_of
    from harmofl.experiment.trained_model import TrainedModel
    from harmofl.inference.prediction.predictor import Options, Predictor
    from harmofl.inference.serving.http_server import serve_app
    from harmofl.inference.serving.service import Limits, make_app

    torch.set_num_threads(threads)
    predictor = Predictor(TrainedModel.open(model), Options(site=site, device=str(device_of(device))))
    app = make_app(predictor, model.resolve().name, Limits(max_mb, max_pixels), host)
    serve_app(app, host, port)
