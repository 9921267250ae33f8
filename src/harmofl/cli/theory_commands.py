"""The commands `harmofl diagnostics | landscape`: measured theory, and the loss around the solutions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.cli.options import Device, Seed, bar
from harmofl.errors import ConfigError

if TYPE_CHECKING:
    from harmofl.analysis.diagnostics.records import DiagnosticsRecord

SHOWN = 10
"""Number of rounds in the table without --all."""
COLUMNS = {
    "round": "round",
    "Γ": "drift",
    "bound": "bound",
    "dissim.": "relative",
    "ε": "epsilon",
    "cosine": "cosine",
    "rise": "sharpness",
    "λ max": "eigenvalue",
}


def diagnostics(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, trained with --diagnostics.")],
    csv: Annotated[Path | None, typer.Option(help="Write all numbers, also of single sites, to this CSV file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write charts over rounds to this .svg or .png file.")] = None,
    every: Annotated[bool, typer.Option("--all", help=f"Show every round instead of {SHOWN}.")] = False,
) -> None:
    """Show the measurements of every round: drift and its bound, dissimilarity of the sites, sharpness.

    Γ: the drift (Eq 9); bound: the right-hand side of Theorem 3.1, none for Adam;
    dissim.: dissimilarity of the sites' gradients, from 0 to 1;
    ε: the largest distance of two sites' gradients (Eq 8); cosine: mean cosine of two sites' updates;
    rise: rise of the loss at perturbed weights; λ max: the largest eigenvalue of its Hessian.

    Example:
        harmofl diagnostics runs/nuclei-harmofl-seed0 runs/nuclei-fedavg-seed0 --picture theory.svg --csv theory.csv
    """
    from harmofl.analysis.diagnostics.records import read_diagnostics, told
    from harmofl.experiment.run_dir import RunDir
    from harmofl.report.diagnostics_charts import FILE, chart

    if picture is not None and picture.suffix.lower() not in (".svg", ".png"):
        raise ConfigError(f"--picture must end with .svg or .png, got {picture}")
    labels = _labels(runs)
    for folder in runs:
        if not (folder / FILE).is_file():
            RunDir.open(folder)
    records = {label: read_diagnostics(folder / FILE) for label, folder in zip(labels, runs, strict=True)}
    console = Console()
    for label, own in records.items():
        console.print(_table(label, own, every))
        print(told(own))
    drawn = chart(records)
    if drawn is None:
        raise ConfigError(f"{runs[0] / FILE}: must have at least one measured round, got none; train one or more")
    if csv is not None or picture is not None:
        from harmofl.report.vega import picture as file_of
        from harmofl.report.vega import table
        from harmofl.utils.atomic_files import write_atomic

        if csv is not None:
            write_atomic(csv, table(drawn).encode())
        if picture is not None:
            write_atomic(picture, file_of(drawn, "svg" if picture.suffix.lower() == ".svg" else "png"))


def _labels(runs: Sequence[Path]) -> list[str]:
    """Return the names of the folders, or their paths if two names are equal."""
    names = [run.resolve().name for run in runs]
    if len({run.resolve() for run in runs}) < len(runs):
        raise ConfigError("each run must be given once, got one twice; leave the second one out")
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _table(label: str, records: Sequence["DiagnosticsRecord"], every: bool) -> Table:
    table = Table(title=escape(label), box=SIMPLE_HEAD, padding=0, collapse_padding=True, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True, min_width=8)
    count = len(records)
    last = count - 1 if every else min(count - 1, SHOWN)
    for k in sorted({round(k * (count - 1) / max(last, 1)) for k in range(last + 1)}):
        table.add_row(*(_number(getattr(records[k], name)) for name in COLUMNS.values()))
    return table


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "-" if value != value else f"{value:.3g}"


def landscape(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, one column each.")],
    out: Annotated[Path, typer.Option(help="The folder to write landscape.html, .svg, .png and .csv to.")],
    plane: Annotated[
        str,
        typer.Option(help="solutions: the directions of the sites' solutions; filters: random, filter-normalized."),
    ] = "solutions",
    resolution: Annotated[int, typer.Option(help="Points along each axis, odd.")] = 15,
    span: Annotated[float | None, typer.Option(help="Distance from centre to edge, in units of the axes.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Largest number of training images per site.")] = 16,
    seed: Seed = 0,
    device: Device = "cpu",
    workers: Annotated[int, typer.Option(min=0, help="Parallel points; 0: one per core, 1 on a GPU.")] = 0,
) -> None:
    """Plot the loss of every site around the global solution of each run, and mark the sites' own solutions.

    A second call with the same runs and options reads the surfaces from OUT/cache.

    Examples:
        harmofl landscape runs/fedavg runs/amplitude runs/harmofl --out landscape

        harmofl landscape runs/fedavg runs/harmofl --out landscape --plane filters --resolution 31 --images 64
    """
    from harmofl.experiment.run_dir import RunDir

    folders = {label: RunDir.open(run).folder for label, run in zip(_labels(runs), runs, strict=True)}

    from harmofl.analysis.landscape.computing import Asked, compute
    from harmofl.analysis.landscape.plane import PlaneKind
    from harmofl.experiment.model_build import device_of
    from harmofl.report.landscape_page import landscape_sentences, write_landscape
    from harmofl.utils.hardware import available_cores

    asked = Asked(cast(PlaneKind, plane), resolution, span, images, seed)
    where = device_of(device)
    threads = workers or (available_cores() if where.type == "cpu" else 1)
    with bar("landscape") as progress:
        found = compute(folders, asked, out / "cache", threads, str(where), progress)
    write_landscape(found, asked, out)
    for line in landscape_sentences(found):
        print(line)
    print(f"page {out / 'landscape.html'}")
