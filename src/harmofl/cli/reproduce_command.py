"""The command `harmofl reproduce`: an experiment of the paper on its data, and its table beside ours."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.cli import options as opt
from harmofl.cli.options import bar, interruptible, say

if TYPE_CHECKING:
    from harmofl.comparison.paper_page import PaperPage
    from harmofl.comparison.reproduction import Reproduction
    from harmofl.comparison.reproduction_record import DownloadFacts


def reproduce(
    task: Annotated[str, typer.Argument(help="nuclei, camelyon17 or prostate.", metavar="TASK")],
    source: Annotated[Path, typer.Option("--from", help="The folder of the unpacked download.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for data, runs and pages; runs/reproduce-TASK-VERSION by default.")
    ] = None,
    version: Annotated[
        str,
        typer.Option("--as", help="Settings: paper, or released as its code runs.", metavar="VERSION"),
    ] = "paper",
    methods: Annotated[
        str, typer.Option(help="Comma-separated methods, as in compare; by default those of the paper's tables.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, counted from run.seed.")] = 3,
    rounds: Annotated[int | None, typer.Option(help="Number of rounds; the paper's by default.")] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Parallel runs; 0: one per GPU, or as many as cores and memory allow.")
    ] = 0,
    device: opt.Device = "auto",
    partial: Annotated[bool, typer.Option("--partial", help="Use what is there of an incomplete download.")] = False,
    setting: opt.Settings = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Prepare the data, print the plan, and train nothing.")
    ] = False,
    budget: Annotated[
        int, typer.Option(min=1, help="Time limit of the plan's measurement of each method.", metavar="SECONDS")
    ] = 20,
) -> None:
    """Reproduce an experiment of the paper: prepare its data, train its methods, put the paper's table beside ours.

    Prints a plan first: data found, hours of every method on this machine, memory, disk; then goes on without asking.
    Writes data/, comparison/ (runs and the page of compare), paper.md and paper.html. Repeat the command to continue.

    Examples:
        harmofl reproduce prostate --from DOWNLOAD --plan-only

        harmofl reproduce nuclei --from DOWNLOAD --out runs/nuclei --seeds 3

        harmofl reproduce camelyon17 --from camelyon17_v1.0 --as released --methods fedavg,harmofl-released --rounds 20
    """
    from harmofl.comparison.reproduction import METHODS, Reproduction
    from harmofl.experiment.config import parse_settings

    changes = parse_settings(setting or [])
    folder = out or Path("runs") / f"reproduce-{task}-{version}"
    chosen = Reproduction(
        task, source, folder, version, methods or METHODS, seeds, rounds, changes, device, partial, workers
    )
    with interruptible():
        chosen.check()
        facts = _prepare(chosen)
        fitting = _plan(chosen, budget)
        if not plan_only:
            _train(chosen, facts, fitting)


def _prepare(chosen: "Reproduction") -> "DownloadFacts":
    """Print what the download holds, and make the federation of it unless it is there."""
    from harmofl.comparison.reproduction import look_at_download, prepare_data

    facts, download = look_at_download(chosen)
    for number, line in enumerate(facts.lines()):
        print(f"{'' if number else 'data':8}{line}", flush=True)
    if download:
        with bar("preparing") as progress:
            prepare_data(chosen, download, facts, progress, say)
    return facts


def _plan(chosen: "Reproduction", budget: int) -> int:
    """Print the plan; return the number of parallel runs."""
    from harmofl.comparison.plan import check_earlier
    from harmofl.comparison.reproduction import study_of
    from harmofl.comparison.reproduction_plan import plan_lines, plan_work, split_line

    study = study_of(chosen)
    jobs = study.jobs()
    check_earlier(jobs, study.out)
    print(split_line(chosen.data, study.base.data.split), flush=True)
    with bar("plan:") as progress:
        plan = plan_work(jobs, chosen.workers, budget, progress)
    for line in plan_lines(plan, chosen.out):
        print(line, flush=True)
    return plan.workers


def _train(chosen: "Reproduction", facts: "DownloadFacts", workers: int) -> None:
    """Run the comparison, write the pages, and end with exit code 1 if a run failed."""
    from dataclasses import replace

    from harmofl.comparison.paper_page import write_paper_page
    from harmofl.comparison.reproduction import study_of
    from harmofl.comparison.study import carry_out_study

    study = replace(study_of(chosen), workers=workers)
    comparison = carry_out_study(study, say)
    page = write_paper_page(chosen, comparison, facts)
    _show(page)
    print(f"table {chosen.out / 'paper.md'}, page {chosen.out / 'paper.html'}")
    print(f"comparison {study.out / 'report.html'}")
    if comparison.failed:
        say(f"harmofl: {comparison.failed[0]}")
        raise typer.Exit(1)


def _show(page: "PaperPage") -> None:
    table = Table(title=escape(page.scores.title))
    for column in (page.scores.corner, *page.scores.columns):
        table.add_column(escape(column), overflow="fold")
    for row in page.scores.rows:
        table.add_row(escape(row.label), *(escape(cell.text) for cell in row.cells))
    Console().print(table)
    print(page.summary)
    for note in page.notes:
        print(note)
