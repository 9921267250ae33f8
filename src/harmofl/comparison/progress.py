"""The progress bar of a comparison: rounds of all runs, and a line for every run that ends."""

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bar:
    """Context manager around a progress bar; the bar itself is the `progress` of `carry_out`.

    Args:
        total: number of rounds of all runs.
        console: where to write; the standard error stream if not given.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        columns = (TextColumn("rounds"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal, transient=True)
        self._task = self._progress.add_task("rounds", total=total)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Move the bar to `done` of `total` rounds and print `what`, if not empty."""
        self._progress.update(self._task, completed=done, total=total)
        if what:
            self.console.print(what, markup=False, highlight=False, soft_wrap=True)
