"""The commands `harmofl diagnostics | landscape`: the theory measured, and the loss around the solutions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.cli.options import Seed, bar
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
    csv: Annotated[Path | None, typer.Option(help="Write every number here, also those of single sites.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write charts over the rounds here, .svg or .png.")] = None,
    every: Annotated[bool, typer.Option("--all", help=f"Show every round, not {SHOWN} of them.")] = False,
) -> None:
    """Show what was measured in every round: drift and its bound, dissimilarity of the sites, sharpness.

    Γ: the drift (Eq 9); bound: the right-hand side of Theorem 3.1, none for Adam;
    dissim.: how far the sites' gradients are apart, from 0 to 1;
    ε: the largest distance of two of them (Eq 8); cosine: of the sites' updates;
    rise: of the loss nearby; λ max: the largest eigenvalue of its Hessian.

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
        console.print(told(own), highlight=False, soft_wrap=True, markup=False)
    drawn = chart(records)
    if drawn is None:
        raise ConfigError(f"{runs[0] / FILE}: no round was measured; let the run take at least one")
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
        raise ConfigError("every run must be given once; leave the second one out")
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _table(label: str, records: Sequence["DiagnosticsRecord"], every: bool) -> Table:
    table = Table(title=escape(label), box=SIMPLE_HEAD, padding=0, collapse_padding=True, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True, min_width=8)
    count = len(records)
    kept = (
        range(count) if every or count <= SHOWN else sorted({round(k * (count - 1) / SHOWN) for k in range(SHOWN + 1)})
    )
    for k in kept:
        table.add_row(*(_number(getattr(records[k], name)) for name in COLUMNS.values()))
    return table


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "-" if value != value else f"{value:.3g}"


def landscape(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, a column each.")],
    out: Annotated[Path, typer.Option(help="The folder to write landscape.html, .svg, .png and .csv to.")],
    plane: Annotated[
        str,
        typer.Option(help="solutions: the directions of the sites' solutions; filters: random, filter-normalized."),
    ] = "solutions",
    resolution: Annotated[int, typer.Option(help="Points along either axis, odd.")] = 15,
    span: Annotated[float | None, typer.Option(help="From the middle to the edge, in units of the axes.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Training images of each site, at most.")] = 16,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")] = "cpu",
    workers: Annotated[
        int, typer.Option(min=0, help="Points computed at a time, a thread each; 0: one a core, 1 on a GPU.")
    ] = 0,
) -> None:
    """Draw every site's loss around the global solution, run beside run, with the sites' own solutions marked.

    A second call with the same runs and options takes the surfaces from OUT/cache.

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
