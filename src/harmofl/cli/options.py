"""Options that several commands have, what they mean, and the progress bar."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from harmofl.errors import ConfigError
from harmofl.types import Progress

if TYPE_CHECKING:
    from harmofl.experiment.config import Experiment

Size = Annotated[str | None, typer.Option(help="Resize images to HEIGHTxWIDTH pixels.", metavar="HxW")]
Channels = Annotated[int | None, typer.Option(min=1, help="1 grey, 3 colour; 2k+1 slices of a volume.")]
Fractions = Annotated[
    str | None, typer.Option(help="Shares of the patients, 0.7,0.1,0.2 if not given.", metavar="TRAIN,VAL,TEST")
]
Unseen = Annotated[
    list[str] | None,
    typer.Option(help="A site that never trains; the chosen model is tested there. May be repeated.", metavar="SITE"),
]
Config = Annotated[Path | None, typer.Argument(help="An experiment as TOML; see configs/.")]
Data = Annotated[Path | None, typer.Option(help="The folder of the federation: a folder per site.")]
Measured = Annotated[bool, typer.Option("--diagnostics", help="Measure drift, dissimilarity and sharpness too.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value, e.g. training.lr=0.01; may be repeated.", metavar="KEY=VALUE"),
]
Seed = Annotated[int, typer.Option(min=0, help="Everything random is derived from it.")]

LISTED = 20
"""Largest number of printed lines of one kind."""


def parse_fractions(text: str | None) -> tuple[float, float, float]:
    """Parse TRAIN,VAL,TEST; raise ConfigError unless it is three numbers."""
    from harmofl.data.splits import FRACTIONS

    if text is None:
        return FRACTIONS
    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--fractions takes three numbers such as 0.7,0.1,0.2, got {text!r}") from None
    return train, val, test


def parse_size(text: str) -> tuple[int, int]:
    """Parse HEIGHTxWIDTH, or one number for both; raise ConfigError otherwise."""
    height, _, width = text.lower().partition("x")
    numbers = [part.isascii() and part.isdigit() and int(part) > 0 for part in (height, width or height)]
    if not all(numbers):
        raise ConfigError(f"--size takes HEIGHTxWIDTH in pixels, such as 256x256, got {text!r}")
    return int(height), int(width or height)


def given_changes(
    data: Path | None,
    rounds: int | None,
    size: str | None,
    unseen: Sequence[str] | None,
    setting: Sequence[str] | None,
    others: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the values that the options of a command set in an experiment, by key."""
    from harmofl.experiment.config import parse_settings

    given = {
        "data.folder": None if data is None else str(data),
        "training.rounds": rounds,
        "data.size": None if size is None else parse_size(size),
        "data.unseen": unseen or None,
        **(others or {}),
    }
    return {key: value for key, value in given.items() if value is not None} | parse_settings(setting or [])


def default_folder(chosen: "Experiment", kind: str) -> Path:
    """Return the folder that a command writes to if none is given."""
    name = chosen.run.name if chosen.run.name != "run" else chosen.data.folder.resolve().name
    return Path("runs") / f"{name}-{kind}"


def check_model(model: Path, data: Path | None = None) -> None:
    """Raise a HarmoFLError unless the folders of model and data exist, before slow imports."""
    from harmofl.data.layout.reader import check_folder
    from harmofl.experiment.run_dir import model_folder

    model_folder(model)
    if data is not None:
        check_folder(data)


def say(line: str) -> None:
    """Print a line on the standard error stream, above a progress bar."""
    print(line, file=sys.stderr)


@contextmanager
def at_work() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into KeyboardInterrupt, also during imports, so that unfinished work is undone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    here = threading.current_thread() is threading.main_thread()  # signals are the main thread's
    heeded = {n: handler for n, handler in before.items() if here and handler not in (None, signal.SIG_IGN)}
    for number in heeded:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)


@contextmanager
def interruptible(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Undo unfinished work on Ctrl-C, print one line that ends with `how_to_go_on()`, and exit with code 130."""
    with at_work():
        try:
            yield
        except KeyboardInterrupt:
            print(f"harmofl: interrupted{how_to_go_on()}", file=sys.stderr)
            raise typer.Exit(130) from None


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """Show a progress bar on standard error within the context; yield the function that moves it."""
    from rich import progress

    console = Console(file=sys.stderr)
    with at_work(), progress.Progress(console=console, disable=not console.is_terminal, transient=True) as shown:
        task = shown.add_task(title, total=None)

        def move(what: str, done: int, total: int) -> None:
            shown.update(task, description=f"{title} {escape(what)}", completed=done, total=total)

        yield move
