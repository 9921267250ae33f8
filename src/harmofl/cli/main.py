"""The command `harmofl`: its commands in the order of first use, and errors as one line."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from harmofl.cli.compare_commands import ablate, compare, search, sweep
from harmofl.cli.data_commands import import_, prepare, synth
from harmofl.cli.deploy_commands import deploy_app
from harmofl.cli.evaluate_command import evaluate
from harmofl.cli.look_commands import check, overview, shift, show
from harmofl.cli.method_commands import methods
from harmofl.cli.model_commands import export, predict, serve_model
from harmofl.cli.options import interruptible
from harmofl.cli.recommend_command import recommend
from harmofl.cli.reproduce_command import reproduce
from harmofl.cli.run_commands import config, demo, plan, report, run, watch
from harmofl.cli.theory_commands import diagnostics, landscape
from harmofl.errors import HarmoFLError

DATA: Mapping[str, Callable[..., None]] = {
    **{"synth": synth, "prepare": prepare, "import": import_},
    **{"check": check, "overview": overview, "shift": shift, "show": show},
}
"""The commands of `harmofl data` by name."""
data_app = typer.Typer(no_args_is_help=True, help="Create, import, check and show the images of a federation.")
for name, command in DATA.items():
    data_app.command(name)(command)
COMMANDS: Mapping[str, Mapping[str, Callable[..., None] | typer.Typer]] = {
    "Start": {"demo": demo},
    "Data, training": {
        "data": data_app,
        "config": config,
        "plan": plan,
        "run": run,
        "watch": watch,
        "report": report,
    },
    "Compare methods": {
        "methods": methods,
        "recommend": recommend,
        "compare": compare,
        "ablate": ablate,
        "sweep": sweep,
        "search": search,
        "reproduce": reproduce,
    },
    "Use a model": {"evaluate": evaluate, "predict": predict, "export": export, "serve-model": serve_model},
    "Theory": {"diagnostics": diagnostics, "landscape": landscape},
    "Across hospitals": {"deploy": deploy_app},
}
"""The commands by name, under the title of their group in `harmofl --help`."""


class _Group(TyperGroup):
    """Command group that lists commands in the order of `COMMANDS` and reports an interruption in one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for group in COMMANDS.values() for name in group]

    def make_context(self, *args: Any, **options: Any) -> Any:
        with interruptible(str):
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("harmofl: interrupted", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Federated learning on heterogeneous medical images: HarmoFL and the methods it is compared with.",
)
for title, group in COMMANDS.items():
    for name, listed in group.items():
        if isinstance(listed, typer.Typer):
            app.add_typer(listed, name=name, rich_help_panel=title)
        else:
            app.command(name, rich_help_panel=title)(listed)


def main() -> None:
    """Run the command line; print a HarmoFLError as one line and exit with its code."""
    try:
        app()
    except HarmoFLError as error:
        print(f"harmofl: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
