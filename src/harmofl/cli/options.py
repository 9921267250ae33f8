"""Options shared by several commands, their parsing, and the progress bar."""

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
    from harmofl.experiment.tables import Experiment

Config = Annotated[Path | None, typer.Argument(help="An experiment as TOML; see configs/.")]
Data = Annotated[Path | None, typer.Option(help="The federation folder, with one folder per site.")]
Folder = Annotated[Path, typer.Argument(help="The federation folder.")]
RESIZE = "Resize images to HEIGHTxWIDTH pixels, or SIDE for both."
Size = Annotated[str | None, typer.Option(help=RESIZE, metavar="HxW")]
Channels = Annotated[
    int | None, typer.Option(min=1, help="Image channels: 1 for grey, 3 for colour, 2k+1 slices for volumes.")
]
ImageMode = Annotated[
    str, typer.Option("--mode", help="volumes for networks of whole volumes, as data.mode of a run; else slices.")
]
Fractions = Annotated[
    str | None, typer.Option(help="Fractions of the patients; 0.7,0.1,0.2 by default.", metavar="TRAIN,VAL,TEST")
]
Unseen = Annotated[
    list[str] | None,
    typer.Option(help="A site that never trains; the chosen model is tested there. May be repeated.", metavar="SITE"),
]
Rounds = Annotated[int | None, typer.Option(help="Number of rounds.")]
Measured = Annotated[bool, typer.Option("--diagnostics", help="Also measure drift, dissimilarity and sharpness.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value, e.g. training.lr=0.01; may be repeated.", metavar="KEY=VALUE"),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]
Model = Annotated[Path, typer.Argument(help="A run folder, or its model/ folder alone.")]
ModelSite = Annotated[
    str, typer.Option("--site", help="Use the model of this training site; by default the mean over the sites.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")]
Host = Annotated[str, typer.Option(help="Address to listen on; 127.0.0.1 accepts this machine only.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]

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
        raise ConfigError(f"--fractions must be three numbers such as 0.7,0.1,0.2, got {text!r}") from None
    return train, val, test


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Parse HEIGHTxWIDTH, or one number for both; raise ConfigError otherwise."""
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    sides = (height, width or height)
    if not all(side.isascii() and side.isdigit() and int(side) > 0 for side in sides):
        raise ConfigError(f"--size must be HEIGHTxWIDTH in pixels, such as 256x256, or 256 for both, got {text!r}")
    return int(sides[0]), int(sides[1])


def keeps_whole(mode: str, **slicing: object) -> bool:
    """Return True for the mode "volumes"; raise ConfigError for other words, or for options of slices beside it."""
    if mode not in ("slices", "volumes"):
        raise ConfigError(f"--mode must be slices or volumes, got {mode!r}; correct it")
    given = [name for name, value in slicing.items() if value is not None]
    if mode == "volumes" and given:
        raise ConfigError(f"--{given[0]} has no effect with --mode volumes; leave it out")
    return mode == "volumes"


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
        "data.folder": data and str(data),
        "training.rounds": rounds,
        "data.size": parse_size(size),
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
    from harmofl.experiment.model_folder import model_folder

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
def interruptible(advice: Callable[[], str] = lambda: "; repeat the command to continue") -> Iterator[None]:
    """Undo unfinished work on Ctrl-C, print one line that ends with `advice()`, and exit with code 130."""
    with at_work():
        try:
            yield
        except KeyboardInterrupt:
            say(f"harmofl: interrupted{advice()}")
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
