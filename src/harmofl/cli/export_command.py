"""The command `harmofl export`: a trained model for other programs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.cli.options import bar, check_model

OPEN = {
    "model.onnx": 'onnxruntime.InferenceSession("{path}").run(None, {{"image": images}})',
    "model.pt2": 'torch.export.load("{path}").module()(images)',
    "bundle": "cd {path} && python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES",
}


def export(
    model: Annotated[Path, typer.Argument(help="A run folder, or its model/ folder alone.")],
    out: Annotated[Path, typer.Option(help="The folder to write into.")],
    formats: Annotated[
        str | None, typer.Option("--format", help="Of onnx, pt2, monai, card, with commas; all that can be by default.")
    ] = None,
    site: Annotated[str, typer.Option(help="What this training site uses; else the mean over the sites.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    r"""Write a trained model as ONNX, torch.export file, MONAI bundle and model card, each checked against torch.

    Amplitude normalization and all statistics are inside. ONNX needs: pip install 'harmofl\[export]'.

    Example:
        harmofl export runs/hospitals-harmofl-seed0 --out exported --format onnx,card
    """
    check_model(model)

    from harmofl.inference.export.exporting import export_model as carry_out

    chosen = None if formats is None else [one.strip() for one in formats.split(",")]
    with bar("exporting") as progress:
        progress(str(model), 0, 1)
        files, left = carry_out(model, out, chosen, site=site, overwrite=overwrite)
    console = Console()
    table = Table("file", "MB", "largest difference to torch")
    for one in files:
        difference = "" if one.difference is None else f"{one.difference:.1e}"
        table.add_row(escape(str(one.path)), f"{one.size / 1e6:.2f}", difference)
    console.print(table)
    for one in files:
        if one.path.name in OPEN:
            said = OPEN[one.path.name].format(path=one.path)
            console.print(f"{one.path.name}: {said}", highlight=False, soft_wrap=True, markup=False)
    for line in left:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
