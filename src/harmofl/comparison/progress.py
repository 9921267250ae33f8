"""The progress bar of a comparison: rounds of all runs, and a line for every run that ends."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console

from harmofl.types import Progress


@contextmanager
def rounds_bar(total: int) -> Iterator[Progress]:
    """Show a bar of `total` rounds on standard error within the context; yield the `progress` of `carry_out`."""
    console = Console(file=sys.stderr)
    columns = (
        *(progress.TextColumn("rounds"), progress.BarColumn(), progress.MofNCompleteColumn()),
        *(progress.TimeElapsedColumn(), progress.TimeRemainingColumn()),
    )
    with progress.Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as shown:
        task = shown.add_task("rounds", total=total)

        def move(what: str, done: int, total: int) -> None:
            shown.update(task, completed=done, total=total)
            if what:
                console.print(what, markup=False, highlight=False, soft_wrap=True)

        yield move
