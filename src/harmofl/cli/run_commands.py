"""The commands `harmofl config | plan | run | watch | report | demo`: training on one machine."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from harmofl.cli import options as opt
from harmofl.cli.options import bar, default_folder, given_changes, interruptible, say
from harmofl.errors import ConfigError
from harmofl.types import Task
from harmofl.utils.shell import quoted

if TYPE_CHECKING:
    from harmofl.experiment.cost_estimate import Forecast
    from harmofl.experiment.tables import Experiment

Named = Annotated[str | None, typer.Option(help="The method; `harmofl methods` lists them.")]


def run(
    config: opt.Config = None,
    data: opt.Data = None,
    method: Named = None,
    rounds: opt.Rounds = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    size: opt.Size = None,
    unseen: opt.Unseen = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to create; runs/NAME by default.")] = None,
    setting: opt.Settings = None,
    resume: Annotated[Path | None, typer.Option(help="Resume the run in this folder.", metavar="RUN")] = None,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Show every site during training.")] = False,
    log: Annotated[
        list[str] | None, typer.Option(help="Also log to tensorboard or mlflow; may be repeated.", metavar="WRITER")
    ] = None,
    diagnostics: opt.Measured = False,
) -> None:
    """Train a federation on one machine and report the scores of its model at every site.

    Examples:
        harmofl run --data hospitals/ --method harmofl --rounds 50

        harmofl run configs/nuclei.toml --data nuclei --set method.rho=0.1 --seed 1

        harmofl run --data hospitals/ --method harmofl --unseen oslo

        harmofl run --resume runs/demo --dashboard --log tensorboard
    """
    from harmofl.experiment.run_dir import RunDir

    others = {"method.name": method, "run.seed": seed, "run.diagnostics": diagnostics or None}
    if resume is not None:
        given = (config, data, rounds, size, unseen or None, out, setting, *others.values())
        if any(value is not None for value in given):
            raise ConfigError("--resume continues a run unchanged; leave out all options but --dashboard and --log")
        chosen, folder = None, RunDir.open(resume).folder
    else:
        chosen = _load(config, given_changes(data, rounds, size, unseen, setting, others))
        folder = out or default_folder(chosen, f"{chosen.method_name}-seed{chosen.run.seed}")
        RunDir.refuse_used(folder)
    _train(chosen, folder, dashboard, log or [])


def _train(chosen: "Experiment | None", folder: Path, dashboard: bool, log: Sequence[str]) -> None:
    """Train an experiment, or resume the run in the folder without one, and report the result."""
    from harmofl.experiment.run_dir import RunDir
    from harmofl.report import write_report
    from harmofl.report.console import print_cost, result_table

    run_dir, report = RunDir(folder), folder / "report.html"
    if chosen is None and run_dir.result_path.exists():
        result = _finished(folder, log)
    else:
        result = _trained(chosen, folder, dashboard, log)
    console = Console()
    console.print(result_table([result]))
    if not _is_up_to_date(report, run_dir.result_path):
        write_report([folder], report)
    print(f"run folder {folder}, report {report}")
    print_cost(folder, console)


def _finished(folder: Path, log: Sequence[str]) -> dict[str, Any]:
    """Return the result of a finished run, without torch; raise HarmoFLError if a file of it is damaged."""
    from harmofl.experiment.finished_run import load_run
    from harmofl.experiment.run_dir import RunDir

    if log:
        from harmofl.experiment.trackers import writers

        writers(log, folder)  # refuses what it does not know
    load_run(folder)
    return RunDir(folder).result()


def _is_up_to_date(report: Path, result: Path) -> bool:
    """Return whether the page was written after the result."""
    return report.is_file() and report.stat().st_size > 0 and report.stat().st_mtime >= result.stat().st_mtime


def _trained(chosen: "Experiment | None", folder: Path, dashboard: bool, log: Sequence[str]) -> dict[str, Any]:
    """Return the result of the run."""
    from harmofl.experiment import trainer
    from harmofl.experiment.run_dir import RunDir
    from harmofl.experiment.trackers import writers
    from harmofl.report.console import Terminal
    from harmofl.report.dashboard import Dashboard

    start = partial(trainer.run, chosen, folder) if chosen else partial(trainer.resume, folder)
    trackers = writers(log, folder)
    shown = Dashboard(RunDir(folder).earlier()) if dashboard and sys.stderr.isatty() else Terminal()
    with interruptible(lambda: _advice(folder)), shown:
        result: dict[str, Any] = start([shown, *trackers])
    return result


def _load(config: Path | None, changes: Mapping[str, Any]) -> "Experiment":
    from harmofl.experiment.config import check_data, load_experiment

    return load_experiment(config, changes, lambda chosen: check_data(chosen.data))


def config(
    file: Annotated[Path, typer.Argument(help="An experiment as TOML; see configs/.", metavar="CONFIG")],
    setting: opt.Settings = None,
) -> None:
    """Check an experiment without its data, show all its values, and name the images to download.

    Example:
        harmofl config configs/paper/prostate-paper.toml
    """
    from harmofl.experiment import config as configuration

    chosen = configuration.load_experiment(file, configuration.parse_settings(setting or []))
    configuration.check_folder_is_named(chosen.data)

    from harmofl.experiment.model_card import check_metric
    from harmofl.models import build_network

    segmentation = chosen.network.name == "unet" or "dice" in (chosen.training.loss or "")
    if segmentation or chosen.network.name == "densenet":
        task: Task = "segmentation" if segmentation else "classification"
        chosen = configuration.resolved(chosen, task)
        check_metric(chosen, task)
    network, folder = chosen.network, chosen.data.folder
    if network.name:
        build_network(network.name, channels=3, classes=2, norm=network.norm, seed=0, options=network.options)
    print(configuration.to_toml(chosen, {}))
    if folder.exists():
        say(f"images in {folder}: check them with `harmofl data check {quoted(folder)}`")
    else:
        source = f"; download {chosen.data.source}" if chosen.data.source else ""
        say(f"images: {folder} does not exist{source}")


def plan(
    config: opt.Config = None,
    data: opt.Data = None,
    method: Named = None,
    rounds: opt.Rounds = None,
    size: opt.Size = None,
    unseen: opt.Unseen = None,
    setting: opt.Settings = None,
    budget: Annotated[
        int, typer.Option(min=1, help="Time limit of the measurement, without reading images.", metavar="SECONDS")
    ] = 60,
) -> None:
    """Estimate time, network traffic, memory and disk of a run on this machine from a few measured steps.

    If other processes keep the cores busy, the time on idle cores is estimated too.

    Examples:
        harmofl plan configs/nuclei.toml --data nuclei

        harmofl plan --data hospitals/ --method fedavg --rounds 200 --set training.participation=0.25

        harmofl plan --data hospitals/ --budget 300
    """
    chosen = _load(config, given_changes(data, rounds, size, unseen, setting, {"method.name": method}))

    from harmofl.experiment.cost_estimate import estimate_cost

    with bar("plan:") as progress:
        found = estimate_cost(chosen, progress, budget, say)
    for line in _planned(found, budget):
        print(line)
    if chosen.run.diagnostics:
        print("without the measurements of run.diagnostics; the run reports their time when it ends")


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
            f"busy    other processes keep the cores busy, processor time is {found.share:.0%} of the time passed: "
            f"{duration(found.seconds)} in all, {said(found.a_round)} a round, if they continue; on idle cores at most "
            f"{duration(found.idle)} in all, {said(found.idle_round)} a round"
        )
    if found.short:
        validated = f"{found.validated} validated images" if found.validated else "no validation (assumed as training)"
        yield f"short   {budget} s allowed only {steps} and {validated}; give a larger --budget SECONDS"
    yield (
        f"wire    {found.wire / megabyte:.1f} MB in all: {found.bytes_up / megabyte:.1f} MB up and "
        f"{found.bytes_down / megabyte:.1f} MB down a round"
    )
    held = f", {found.held / megabyte:.0f} MB of it updates that the server holds until a round ends"
    yield f"memory  {found.memory / megabyte:.0f} MB{held if found.held >= megabyte else ''}"
    yield f"disk    {found.disk / megabyte:.0f} MB"


def _advice(folder: Path) -> str:
    begun = (folder / "config.toml").exists()
    return f"; go on with `harmofl run --resume {quoted(folder)}`" if begun else " before training began"


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders to show side by side.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
) -> None:
    """Write one or more runs to one HTML file that needs no network.

    Example:
        harmofl report runs/harmofl runs/fedavg --out comparison.html
    """
    from harmofl.report import write_report

    print(f"report {write_report(runs, out)}")


def watch(
    run: Annotated[Path, typer.Argument(help="The run folder; the run may start later.")],
    host: opt.Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8010,
) -> None:
    """Serve the report of a run as a page that is updated during training; all who reach it see the run's images.

    Example:
        harmofl watch runs/hospitals-harmofl-seed0 --port 8010
    """
    from harmofl.report.watch_server import server

    if run.exists() and not run.is_dir():
        raise ConfigError(f"{run}: must be a run folder or not exist yet, but is a file; give the folder of a run")
    with server(run, host, port) as serving:
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{serving.server_address[1]}/ shows {run}; press Ctrl-C to stop", flush=True)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the images, both runs and the report.")] = Path("runs/demo"),
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds of each method.")] = 40,
    seed: opt.Seed = 0,
    unseen: Annotated[
        str, typer.Option(help="The one of site-1 to site-5 that never trains.", metavar="SITE")
    ] = "site-5",
    diagnostics: opt.Measured = False,
) -> None:
    """Train HarmoFL and FedAvg on a synthetic federation, and test both also at a hospital that never trains.

    Example:
        harmofl demo --out runs/demo

        harmofl demo --out runs/demo-2 --unseen site-2
    """
    from harmofl.comparison.demo import run_demo

    with interruptible():
        run_demo(out, rounds, seed, Console(), diagnostics, unseen)
