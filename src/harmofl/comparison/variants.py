"""What is compared: methods as a user names them, each with what it changes in the experiment."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harmofl.config import parse_value
from harmofl.errors import ConfigError
from harmofl.methods import METHODS
from harmofl.seeding import derived_seed

ABLATION = (
    "FedAvg=fedavg",
    "+ amplitude=harmofl:alpha=0",
    "+ perturbation=fedsam",
    "+ both (HarmoFL)=harmofl",
)
"""The ablation of the paper's Figure 5 as method specifications."""


@dataclass(frozen=True)
class Variant:
    """One thing that is compared.

    Args:
        label: how it is called in tables.
        method: the method's name.
        changes: dotted key -> value of the experiment; a key without a dot is a hyperparameter of the method.
    """

    label: str
    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The label as the name of a folder."""
        name = re.sub(r"[^\w.+-]+", "_", self.label).strip("_.") or "variant"
        return name if len(name.encode()) <= 80 else f"{name[:20]}-{derived_seed(0, name):x}"

    def settings(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Dotted changes to an experiment whose method table is `base`; its hyperparameters hold for its own method."""
        kept = {f"method.{key}": value for key, value in base.items() if base.get("name") == self.method}
        own = {key if "." in key else f"method.{key}": value for key, value in self.changes.items()}
        return {**kept, "method.name": self.method, **own}


def parse_variants(text: str, tuned: Mapping[str, Mapping[str, Any]] | None = None) -> list[Variant]:
    """Read `fedavg,fedprox:mu=0.1,Harmonized=harmofl:band=0.1:alpha=0`, a comma between methods.

    Args:
        text: for each method optionally a label and "=", the method's name, and `:key=value` for what it changes.
        tuned: by label or method name, further changes; what stands in `text` goes first.

    Raises:
        ConfigError: for an unknown method, a label twice, or text of another form.
    """
    variants = [parse_variant(part.strip(), tuned or {}) for part in text.split(",") if part.strip()]
    if not variants:
        raise ConfigError("--methods needs at least one method, such as fedavg,harmofl; see `harmofl methods`")
    folders = [variant.folder.lower() for variant in variants]
    for variant in variants:
        if folders.count(variant.folder.lower()) > 1:
            raise ConfigError(
                f"--methods: {variant.label!r} is there twice; give one a label, such as strong=fedprox:mu=1"
            )
    return variants


def parse_variant(text: str, tuned: Mapping[str, Mapping[str, Any]]) -> Variant:
    """One of them."""
    head, *settings = text.split(":")
    label, equals, name = head.rpartition("=")
    if name not in METHODS:
        raise ConfigError(f"--methods: method must be one of {', '.join(METHODS)}, got {name!r} in {text!r}")
    label = label.strip() if equals else text
    changes = dict(tuned.get(label, tuned.get(name, {})))
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--methods takes name:key=value, such as fedprox:mu=0.1, got {text!r}")
        changes[key.strip()] = parse_value(value.strip())
    return Variant(label, name, changes)


def read_tuned(path: Path) -> dict[str, dict[str, Any]]:
    """What `harmofl search` found: a table of changes for each method.

    Raises:
        ConfigError: if the file is missing or of another form.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: must be the tuned.toml of `harmofl search`, but {error}") from None
    if not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(f"{path}: must have one table a method, as `harmofl search` writes it")
    return tables


def crossed(variants: Sequence[Variant], key: str, values: Mapping[str, Any]) -> list[Variant]:
    """Every variant with every value of one setting; `values` has them by how they are written."""
    return [
        Variant(f"{variant.label} {key}={text}", variant.method, {**variant.changes, key: value})
        for variant in variants
        for text, value in values.items()
    ]
