"""Terminal output of a run: a live progress bar, and a table of results at the end."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from harmofl.analysis.diagnostics.records import read_diagnostics, told
from harmofl.experiment.callbacks import Callback
from harmofl.experiment.round_record import RoundRecord
from harmofl.experiment.tables import Experiment
from harmofl.utils.hardware import default_threads
from harmofl.utils.shell import quoted

if TYPE_CHECKING:
    from harmofl.experiment.setup import Setup


class Terminal(Callback):
    """Progress bar that advances with every site of every round; without a terminal, about ten lines a run.

    Args:
        console: where to write; the standard error stream if not given.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._bar = self._progress.add_task("reading", total=None, said="")
        self._metric = ""
        self._rounds = 0
        self._said = "not validated yet"
        self._told: set[str] = set()

    def __enter__(self) -> "Terminal":
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def on_load(self, site: str, done: int, total: int) -> None:
        """Show the site that is being read."""
        self._progress.update(self._bar, completed=done, total=total, said=site)

    def on_message(self, line: str) -> None:
        """Print a line unless it was printed before."""
        if line not in self._told:
            self._told.add(line)
            print_plain(self.console, line)

    def on_train_begin(self, setup: "Setup", first_round: int) -> None:
        """Print the settings and start a new bar with one tick a site and round."""
        experiment = setup.experiment
        self._rounds, count = experiment.training.rounds, len(setup.drawn(1))
        self._metric = setup.metric
        name = experiment.method_name
        rounds = f"{self._rounds} round{'s' * (self._rounds != 1)}"
        network = f"{experiment.network.name} ({experiment.network.norm})"
        sites = len(setup.federation.sites)
        print_plain(self.console, f"{name}: {sites} sites, {rounds}, {network}, {_threads(experiment)}")
        for line in setup.remarks():
            self.on_message(f"warning: {line}")
        done, total = (first_round - 1) * count, self._rounds * count
        self._progress.reset(self._bar, description=name, total=total, completed=done, said="")

    def on_client_end(self, site: str) -> None:
        """Advance the bar by one tick."""
        self._progress.update(self._bar, advance=1)

    def on_round_end(self, record: RoundRecord) -> None:
        """Show the validation scores."""
        if summary := record.summary(self._metric):
            worst = f"{summary.worst:.3f} ({summary.worst_site})"
            self._said = f"validation {self._metric} {summary.mean:.3f}, worst {worst}"
            self._progress.update(self._bar, said=self._said)
        if not self.console.is_terminal and record.round % max(1, self._rounds // 10) == 0:
            print_plain(self.console, f"round {record.round}/{self._rounds}: {self._said}")


def print_plain(console: Console, line: str) -> None:
    """Print a line as it is: not cut to the width, without markup and colours."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def _threads(experiment: Experiment) -> str:
    """Describe the number of threads and its origin."""
    count, why = default_threads(experiment.run.workers)
    told = "thread" if experiment.run.threads == 1 else "threads"
    return f"{experiment.run.threads} {told} ({why if experiment.run.threads == count else 'run.threads'})"


def result_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of test scores: one row a site, one column a run."""
    metric, sites = results[0]["main_metric"], list(results[0]["test"])
    table = Table(title=f"test {escape(metric)} of the model with the best mean validation score")
    table.add_column("site")
    for result in results:
        table.add_column(escape(result["method"]), justify="right")
    for site in sites:
        table.add_row(escape(site), *(_number(result["test"][site][metric]) for result in results))
    table.add_section()
    for title, key in (("mean", "mean"), ("worst site", "worst"), ("std across sites", "std")):
        table.add_row(title, *(_number(result["summary"][key]) for result in results))
    table.add_section()
    for site in dict.fromkeys(site for result in results for site in result["unseen"]):
        scores = [result["unseen"].get(site, {}).get(metric) for result in results]
        table.add_row(f"{escape(site)} (unseen)", *map(_number, scores))
    table.add_section()
    table.add_row("chosen round", *(f"{result['chosen_round']} of {result['rounds']}" for result in results))
    table.add_row("seconds per round", *(f"{result['seconds_per_round']:.2f}" for result in results))
    return table


def print_cost(folder: Path, console: Console) -> None:
    """Print the time that diagnostics took, if the run has diagnostics."""
    path = folder / "diagnostics.jsonl"
    if path.exists():
        print_plain(console, f"{told(read_diagnostics(path))}; see `harmofl diagnostics {quoted(folder)}`")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
