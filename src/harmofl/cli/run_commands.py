"""The commands `harmofl run | plan | report | watch | demo`: train on one machine and see how it goes."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from harmofl.cli.options import (
    Config,
    Data,
    Measured,
    Seed,
    Settings,
    Size,
    Unseen,
    bar,
    default_folder,
    given_changes,
    interruptible,
    say,
)
from harmofl.errors import ConfigError

if TYPE_CHECKING:
    from harmofl.experiment.config import Experiment
    from harmofl.experiment.cost_estimate import Forecast

Named = Annotated[str | None, typer.Option(help="Which method; `harmofl methods` lists them.")]
Rounds = Annotated[int | None, typer.Option(help="How many rounds.")]
Seeded = Annotated[int | None, typer.Option(help="Everything random is derived from it.")]


def run(
    config: Config = None,
    data: Data = None,
    method: Named = None,
    rounds: Rounds = None,
    seed: Seeded = None,
    size: Size = None,
    unseen: Unseen = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to make; runs/NAME by default.")] = None,
    setting: Settings = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.", metavar="RUN")] = None,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Show every site while training.")] = False,
    log: Annotated[
        list[str] | None, typer.Option(help="Also write to tensorboard or mlflow; may be repeated.", metavar="WRITER")
    ] = None,
    diagnostics: Measured = False,
) -> None:
    """Train a federation on one machine and report how its model does at every site.

    Examples:
        harmofl run --data hospitals/ --method harmofl --rounds 50

        harmofl run configs/nuclei.toml --data nuclei --set method.rho=0.1 --seed 1

        harmofl run --data hospitals/ --method harmofl --unseen oslo

        harmofl run --resume runs/demo --dashboard --log tensorboard
    """
    from harmofl.experiment.run_dir import RunDir

    if resume is not None and any(
        given is not None
        for given in (config, data, method, rounds, seed, size, unseen or None, out, setting, diagnostics or None)
    ):
        raise ConfigError(
            "--resume takes the run as it was begun; of other options only --dashboard and --log may stand beside it"
        )
    if resume is not None:
        chosen, folder = None, RunDir.open(resume).folder
    else:
        chosen = _experiment(config, data, method, rounds, seed, size, unseen, setting, diagnostics)
        folder = out or default_folder(chosen, f"{chosen.method_name}-seed{chosen.run.seed}")
        RunDir.refuse_used(folder)

    from harmofl.experiment import trainer
    from harmofl.experiment.trackers import writers
    from harmofl.report import write_report
    from harmofl.report.console import Terminal, print_cost, result_table
    from harmofl.report.dashboard import Dashboard

    start = partial(trainer.run, chosen, folder) if chosen else partial(trainer.resume, folder)
    others = writers(log or [], folder)
    shown = Dashboard(RunDir(folder).earlier()) if dashboard and sys.stderr.isatty() else Terminal()
    with interruptible(lambda: _how_to_go_on(folder)), shown:
        result = start([shown, *others])
    report = write_report([folder], folder / "report.html")
    console = Console()
    console.print(result_table([result]))
    console.print(f"run folder {folder}, report {report}", soft_wrap=True, markup=False)
    print_cost(folder, console)


def _experiment(
    config: Path | None,
    data: Path | None,
    method: str | None,
    rounds: int | None,
    seed: int | None,
    size: str | None,
    unseen: list[str] | None,
    setting: list[str] | None,
    diagnostics: bool = False,
) -> "Experiment":
    """Return the experiment that the options set."""
    from harmofl.experiment.config import check_data, load_experiment

    others = {"method.name": method, "run.seed": seed, "run.diagnostics": diagnostics or None}
    changes = given_changes(data, rounds, size, unseen, setting, others)
    return load_experiment(config, changes, lambda chosen: check_data(chosen.data))


def plan(
    config: Config = None,
    data: Data = None,
    method: Named = None,
    rounds: Rounds = None,
    size: Size = None,
    unseen: Unseen = None,
    setting: Settings = None,
    budget: Annotated[
        int, typer.Option(min=1, help="Measure no longer; reading the images comes before.", metavar="SECONDS")
    ] = 60,
) -> None:
    """Say what a run will take here, from a few measured steps: time, bytes on the wire, memory, disk.

    If other work keeps the cores busy, it says so, and what the run would take on idle ones.

    Examples:
        harmofl plan configs/nuclei.toml --data nuclei

        harmofl plan --data hospitals/ --method fedavg --rounds 200 --set training.participation=0.25

        harmofl plan --data hospitals/ --budget 300
    """
    chosen = _experiment(config, data, method, rounds, None, size, unseen, setting)

    from harmofl.experiment.cost_estimate import estimate_cost

    with bar("plan:") as progress:
        found = estimate_cost(chosen, progress, budget, say)
    for line in _planned(found, budget):
        print(line)
    if chosen.run.diagnostics:
        print("without the measurements of run.diagnostics, whose time the run tells when it ends")


def _planned(found: "Forecast", budget: int) -> Iterator[str]:
    """Yield the lines of a plan."""
    from harmofl.report.scores import duration

    def said(seconds: float) -> str:
        return duration(seconds) if seconds >= 600 else f"{seconds:.{2 * (seconds < 90)}f} s"

    part = "all of them train in each round" if found.drawn == found.sites else f"{found.drawn} train in each round"
    steps, megabyte = f"{found.steps} step{'s' * (found.steps != 1)}", 1e6
    yield f"{found.sites} sites, {part}, {found.rounds} rounds; measured on {steps}"
    yield (
        f"time    {duration(found.seconds)} in all: {found.start:.1f} s to start, {said(found.a_round)} a round "
        f"(training {said(found.training)}, validation {said(found.validation)}, the rest {said(found.rest)}), "
        f"{found.test:.1f} s to test"
    )
    if found.busy:
        yield (
            f"busy    other work keeps the cores busy, processor time is {found.share:.0%} of the time that passed: "
            f"{duration(found.seconds)} in all, {said(found.a_round)} a round, if that stays so; on idle cores at most "
            f"{duration(found.idle)} in all, {said(found.idle_round)} a round"
        )
    if found.short:
        validated = (
            f"{found.validated} validated images" if found.validated else "no validation, taken as slow as training"
        )
        yield f"short   {budget} s allowed no more than {steps} and {validated}; --budget SECONDS measures longer"
    yield (
        f"wire    {found.wire / megabyte:.1f} MB in all: {found.bytes_up / megabyte:.1f} MB up and "
        f"{found.bytes_down / megabyte:.1f} MB down a round"
    )
    yield f"memory  {found.memory / megabyte:.0f} MB"
    yield f"disk    {found.disk / megabyte:.0f} MB"


def _how_to_go_on(folder: Path) -> str:
    begun = (folder / "config.toml").exists()
    return f"; go on with `harmofl run --resume {folder}`" if begun else " before training began"


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders to show side by side.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
) -> None:
    """Put one or more runs into one HTML file that needs no network.

    Example:
        harmofl report runs/harmofl runs/fedavg --out comparison.html
    """
    from harmofl.report import write_report

    print(f"report {write_report(runs, out)}")


def watch(
    run: Annotated[Path, typer.Argument(help="The run folder; the run may begin later.")],
    host: Annotated[str, typer.Option(help="Where to serve; 127.0.0.1 is for this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8010,
) -> None:
    """Serve the report of a run as a page that fills while it trains. Whoever can reach it sees the run's images.

    Example:
        harmofl watch runs/hospitals-harmofl-seed0 --port 8010
    """
    from harmofl.report.watch_server import server

    if run.exists() and not run.is_dir():
        raise ConfigError(f"{run}: must be a run folder, or become one, but is a file; give the folder of a run")
    with server(run, host, port) as serving:
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{serving.server_address[1]}/ shows {run}; Ctrl-C ends it", flush=True)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the images, both runs and the report.")] = Path("runs/demo"),
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds each method trains.")] = 40,
    seed: Seed = 0,
    unseen: Annotated[str, typer.Option(help="Which of site-1 to site-5 never trains.", metavar="SITE")] = "site-5",
    diagnostics: Measured = False,
) -> None:
    """Train HarmoFL and FedAvg on a synthetic federation, and test both also at a hospital that never trains.

    Example:
        harmofl demo --out runs/demo

        harmofl demo --out runs/demo-2 --unseen site-2
    """
    from harmofl.comparison.demo import run_demo

    with interruptible(lambda: "; the same command goes on where it was"):
        run_demo(out, rounds, seed, Console(), diagnostics, unseen)
