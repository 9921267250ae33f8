"""The commands `harmofl methods | config`: lists of methods and parts, and checks of an experiment."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.cli.options import Settings, say
from harmofl.types import Task

if TYPE_CHECKING:
    from harmofl.methods.catalogue import Description


def methods() -> None:
    """List the methods and the parts that every method takes, with their hyperparameters and defaults.

    Example:
        harmofl methods
    """
    from harmofl.methods import plugins
    from harmofl.methods.catalogue import NAMES, PARTS, PRESETS, composition_of
    from harmofl.methods.composition import describe, part_description

    table = _table("method", "what it does", "hyperparameters")
    for name in (*NAMES, *plugins.entry_points(plugins.METHODS)):
        known = describe(name)
        parts = [f"+{part}" for part in known.parts.values() if part not in NEUTRAL]
        made = f"= {composition_of(name)[0]}" if name in PRESETS else " ".join([_defaults(known), *parts])
        table.add_row(name, escape(known.about), escape(made))
    parts_table = _table("part", "what it does", "hyperparameters")
    for name in (*PARTS, *plugins.entry_points(plugins.PARTS)):
        known = part_description(name)
        parts_table.add_row(name, escape(known.about), escape(_defaults(known)))
    Console().print(table)
    Console().print("Every method takes parts, as in fedprox:mu=1+amplitude:band=0.1+sam:rho=0.05:")
    Console().print(parts_table)


NEUTRAL = ("identity", "plain", "mean")
"""The parts of FedAvg."""


def _defaults(known: "Description") -> str:
    return ", ".join(f"{key}={field.default}" for key, field in known.own.items())


def _table(*columns: str) -> Table:
    table = Table(show_lines=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def config(
    file: Annotated[Path, typer.Argument(help="An experiment as TOML; see configs/.", metavar="CONFIG")],
    setting: Settings = None,
) -> None:
    """Check an experiment without its data, show all its values, and name the images to download.

    Example:
        harmofl config configs/paper/prostate-paper.toml
    """
    from harmofl.experiment import config as configuration

    chosen = configuration.load_experiment(file, configuration.parse_settings(setting or []))
    configuration.check_folder_is_named(chosen.data)

    from harmofl.experiment.setup import check_metric
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
        say(f"images in {folder}: check them with `harmofl data check {folder}`")
    else:
        source = f"; download {chosen.data.source}" if chosen.data.source else ""
        say(f"images: {folder} does not exist{source}")
