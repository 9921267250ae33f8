"""The command `harmofl methods`."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harmofl.utils.toml_values import value_text

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

    table = _folded("method", "description", "hyperparameters")
    for name in (*NAMES, *plugins.entry_points(plugins.METHODS)):
        known = describe(name)
        parts = [f"+{part}" for part in known.parts.values() if part not in NEUTRAL]
        made = f"= {composition_of(name)[0]}" if name in PRESETS else " ".join([_defaults(known), *parts])
        table.add_row(name, escape(known.about), escape(made))
    parts_table = _folded("part", "description", "hyperparameters")
    for name in (*PARTS, *plugins.entry_points(plugins.PARTS)):
        known = part_description(name)
        parts_table.add_row(name, escape(known.about), escape(_defaults(known)))
    Console().print(table)
    Console().print("Every method takes parts, as in fedprox:mu=1+amplitude:band=0.1+sam:rho=0.05:")
    Console().print(parts_table)


NEUTRAL = ("identity", "plain", "mean")
"""The parts of FedAvg."""


def _defaults(known: "Description") -> str:
    return ", ".join(f"{key}={value_text(field.default)}" for key, field in known.own.items())


def _folded(*columns: str) -> Table:
    table = Table(show_lines=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
