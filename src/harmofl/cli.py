"""The command `harmofl`: parse, call, print."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.errors import ConfigError, HarmoFLError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Federated learning on heterogeneous medical images: HarmoFL and the methods it is compared with.",
)
data_app = typer.Typer(no_args_is_help=True, help="Make, import, check and show the images of a federation.")
app.add_typer(data_app, name="data")

Size = Annotated[str | None, typer.Option(help="Resize images to HEIGHTxWIDTH pixels.", metavar="HxW")]
Seed = Annotated[int, typer.Option(min=0, help="Everything random is derived from it.")]


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="An experiment as TOML; see configs/.")] = None,
    data: Annotated[Path | None, typer.Option(help="The folder of the federation: a folder per site.")] = None,
    method: Annotated[str | None, typer.Option(help="Which method; `harmofl methods` lists them.")] = None,
    rounds: Annotated[int | None, typer.Option(help="How many rounds.")] = None,
    seed: Annotated[int | None, typer.Option(help="Everything random is derived from it.")] = None,
    size: Size = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to make; runs/NAME by default.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one value, e.g. training.lr=0.01; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.", metavar="RUN")] = None,
) -> None:
    """Train a federation on one machine and report how its model does at every site.

    Examples:
        harmofl run --data hospitals/ --method harmofl --rounds 50

        harmofl run configs/nuclei.toml --data nuclei --set method.alpha=0.1 --seed 1

        harmofl run --resume runs/demo
    """
    from harmofl import config as configuration
    from harmofl import experiment
    from harmofl.report import write_report
    from harmofl.terminal import Terminal, result_table

    if resume is not None and any(
        given is not None for given in (config, data, method, rounds, seed, size, out, setting)
    ):
        raise ConfigError("--resume takes the run as it was begun; leave all other options out")
    if resume is not None:
        folder = resume
        start = partial(experiment.resume, folder)
    else:
        given: dict[str, Any] = {
            "data.folder": None if data is None else str(data),
            "method.name": method,
            "training.rounds": rounds,
            "run.seed": seed,
            "data.size": None if size is None else _size(size),
        }
        changes = {key: value for key, value in given.items() if value is not None}
        chosen = configuration.load_experiment(config, changes | configuration.parse_settings(setting or []))
        folder = out or _default_folder(chosen)
        start = partial(experiment.run, chosen, folder)
    try:
        with Terminal() as terminal:
            result = start(terminal)
    except KeyboardInterrupt:
        begun = (folder / "config.toml").exists()
        hint = f"; go on with `harmofl run --resume {folder}`" if begun else " before training began"
        print(f"harmofl: interrupted{hint}", file=sys.stderr)
        raise typer.Exit(130) from None
    report = write_report([folder], folder / "report.html")
    console = Console()
    console.print(result_table([result]))
    console.print(f"run folder {folder}, report {report}", soft_wrap=True)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders to show side by side.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
) -> None:
    """Put one or more runs into one HTML file that needs no network.

    Example:
        harmofl report runs/harmofl runs/fedavg --out comparison.html
    """
    from harmofl.report import write_report

    Console().print(f"report {write_report(runs, out)}", soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the images, both runs and the report.")] = Path("runs/demo"),
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds each method trains.")] = 20,
    seed: Seed = 0,
) -> None:
    """Train HarmoFL and FedAvg on a synthetic federation of four hospitals and compare them.

    Example:
        harmofl demo --out runs/demo
    """
    from harmofl.demo import run_demo

    run_demo(out, rounds, seed, Console())


@app.command()
def methods() -> None:
    """List the methods with their hyperparameters and defaults.

    Example:
        harmofl methods
    """
    from dataclasses import fields

    from harmofl.methods import METHODS

    table = Table(show_lines=False)
    for column in ("method", "what it does", "hyperparameters"):
        table.add_column(column)
    for name, method in METHODS.items():
        about = (sys.modules[method.__module__].__doc__ or "").splitlines()[0].partition(": ")[2]
        table.add_row(name, escape(about), ", ".join(f"{f.name}={f.default}" for f in fields(method)))
    Console().print(table)


@data_app.command()
def synth(
    to: Annotated[Path, typer.Option(help="The folder to make.")],
    kind: Annotated[str, typer.Option(help="cells (stained tissue) or mri (prostate phantom).")] = "cells",
    task: Annotated[str, typer.Option(help="segmentation or classification.")] = "segmentation",
    sites: Annotated[int, typer.Option(min=1, help="How many sites.")] = 4,
    images: Annotated[int, typer.Option(help="Images per site.")] = 48,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 64,
    shift: Annotated[float, typer.Option(help="How much the sites differ; 0 not at all.")] = 1.0,
    seed: Seed = 0,
) -> None:
    """Make a synthetic federation: the same anatomy, other stains and scanners at every site.

    Example:
        harmofl data synth --to hospitals --kind cells --task segmentation --sites 4
    """
    from harmofl.data.synthetic import write_federation

    with _bar("drawing") as progress:
        info = write_federation(
            to,
            kind=kind,  # type: ignore[arg-type]
            task=task,  # type: ignore[arg-type]
            sites=sites,
            images=images,
            size=size,
            shift=shift,
            seed=seed,
            progress=lambda done, total: progress("", done, total),
        )
    Console().print(f"{to}: {info.task}, {sites} sites; train with `harmofl run --data {to}`", soft_wrap=True)


@data_app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A folder per site: class folders, or images/ and masks/.")],
    to: Annotated[Path, typer.Option(help="The federation folder to make.")],
    size: Size = None,
    channels: Annotated[int | None, typer.Option(min=1, help="1 grey, 3 colour; 2k+1 slices of a volume.")] = None,
    seed: Seed = 0,
    patient_column: Annotated[str | None, typer.Option(help="Column of metadata.csv that names the patient.")] = None,
    split_column: Annotated[str | None, typer.Option(help="Column of metadata.csv that says train, val, test.")] = None,
    origin: Annotated[str, typer.Option(help="Where the data came from.")] = "",
    licence: Annotated[str, typer.Option(help="Under which licence.")] = "",
) -> None:
    """Copy a folder of sites into a federation with a manifest, split by patient.

    Example:
        harmofl data import scans/ --to hospitals --size 256x256 --licence "CC BY 4.0"
    """
    from harmofl.data.importing import import_federation

    with _bar("importing") as progress:
        info = import_federation(
            source,
            to,
            size=_size(size) if size else None,
            channels=channels,
            seed=seed,
            patient_column=patient_column,
            split_column=split_column,
            origin=origin,
            licence=licence,
            progress=progress,
        )
    Console().print(f"{to}: {info.task}, classes {', '.join(info.classes)}", soft_wrap=True)


@data_app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="The federation.")],
    size: Size = None,
) -> None:
    """Read every file and list what training would stumble over. Ends with 2 if there are errors.

    Example:
        harmofl data check hospitals
    """
    from harmofl.data.check import find_problems

    with _bar("checking") as progress:
        problems = find_problems(folder, size=_size(size) if size else None, progress=progress)
    for problem in problems:
        print(f"{problem.severity}: {problem}")
    errors = sum(problem.severity == "error" for problem in problems)
    print(f"{folder}: {errors} errors, {len(problems) - errors} warnings")
    raise typer.Exit(2 if errors else 0)


@data_app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="The federation.")],
    size: Size = None,
    seed: Seed = 0,
    picture: Annotated[Path | None, typer.Option(help="Also write a PNG with some images of every site.")] = None,
) -> None:
    """Show how many images, patients and classes every site has, and what they look like.

    Example:
        harmofl data show hospitals --picture hospitals.png
    """
    from harmofl.data import describe, open_federation

    with _bar("reading") as progress:
        federation = open_federation(folder, size=_size(size) if size else None, seed=seed, progress=progress)
    rows = describe(federation)
    table = Table(title=f"{federation.info.name}: {federation.info.task}")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row.values()))
    Console().print(table)
    if picture is not None:
        from harmofl.report.sheet import write_sheet

        write_sheet(federation, picture)
        Console().print(f"picture {picture}", soft_wrap=True)


def _default_folder(chosen: Any) -> Path:
    name = chosen.run.name if chosen.run.name != "run" else chosen.data.folder.resolve().name
    return Path("runs") / f"{name}-{chosen.method['name']}-seed{chosen.run.seed}"


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    numbers = [part.isascii() and part.isdigit() and int(part) > 0 for part in (height, width or height)]
    if not all(numbers):
        raise ConfigError(f"--size takes HEIGHTxWIDTH in pixels, such as 256x256, got {text!r}")
    return int(height), int(width or height)


class _bar:  # noqa: N801
    """A progress bar on the standard error stream, as a context that gives (label, done, total) -> None."""

    def __init__(self, title: str) -> None:
        from rich.progress import Progress

        console = Console(file=sys.stderr)
        self._progress = Progress(console=console, disable=not console.is_terminal, transient=True)
        self._task = self._progress.add_task(title, total=None)
        self._title = title

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._progress.start()
        return self._tell

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def _tell(self, label: str, done: int, total: int) -> None:
        self._progress.update(self._task, description=f"{self._title} {label}", completed=done, total=total)


def main() -> None:
    """Entry point: every error of ours is one line and an exit code."""
    try:
        app()
    except HarmoFLError as error:
        print(f"harmofl: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("harmofl: interrupted", file=sys.stderr)
        sys.exit(130)
