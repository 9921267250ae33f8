"""Variants of a comparison: a method, its label, and its changes to the experiment."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from harmofl.errors import ConfigError
from harmofl.methods.catalogue import NAMES, arrangement
from harmofl.methods.composition import canonical, carried, describe, parse_composition
from harmofl.methods.deprecated_names import RENAMED
from harmofl.utils.seeding import derived_seed
from harmofl.utils.toml_values import split_outside

ABLATION = (
    "FedAvg=fedavg",
    "+ amplitude=fedavg+amplitude",
    "+ perturbation=fedavg+sam",
    "+ both (HarmoFL)=fedavg+amplitude+sam",
)
"""Method specifications of the ablation in the paper's Figure 5."""


@dataclass(frozen=True)
class Variant:
    """One method of a comparison with its changes.

    Args:
        label: name in tables and charts.
        method: the method's name.
        changes: dotted key -> value of the experiment; a key without a dot is a hyperparameter of the method.
    """

    label: str
    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def common(self) -> bool:
        """True if the method trains a model that an unseen site can use."""
        return arrangement(self.method) != "local"

    @property
    def folder(self) -> str:
        """The folder name made from the label."""
        name = re.sub(r"[^\w.+-]+", "_", self.label).strip("_.") or "variant"
        return name if len(name.encode()) <= 80 else f"{name[:20]}-{derived_seed(0, name):x}"

    def settings(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return dotted changes to an experiment; the hyperparameters in `base` are kept for the method of `base`."""
        kept = {f"method.{key}": value for key, value in carried(base, self.method).items()} if base else {}
        own = {key if "." in key else f"method.{key}": value for key, value in self.changes.items()}
        return {"method.name": self.method, **kept, **own}


RESERVED = (
    *("cache", "tuned.toml", "scores.csv", "report.html", "report-files"),
    *(
        f"{name}.{kind}"
        for name in ("table", "comparison", "sweep")
        for kind in ("md", "tex", "json", "csv", "png", "svg")
    ),
)
"""Names of what a comparison writes into its folder."""


def check_may_differ(key: str, where: str, also: tuple[str, ...] = ()) -> None:
    """Raise ConfigError unless the setting `key` may differ between the methods of a comparison."""
    if key in ("name", "method.name"):
        raise ConfigError(f"{where}: {key} must not be set for a method; write the name of the method itself")
    if "." in key and not key.startswith(("method.", "training.", "privacy.", *also)):
        allowed = "hyperparameters, training.* and privacy.*" + "".join(f", {name.rstrip('.')}" for name in also)
        raise ConfigError(f"{where}: {key} must be the same for all compared methods; only {allowed} may differ")


def parse_variants(text: str, tuned: Mapping[str, Mapping[str, Any]] | None = None) -> list[Variant]:
    """Parse method specifications, as in `fedavg,fedprox:mu=0.1,Harmonized=fedprox+amplitude:band=0.1`.

    Args:
        text: for each method an optional label and "=", the method as a composition, see
            `harmofl.methods.composition`, and `:key=value` for each change.
        tuned: further changes, by label or method name; changes in `text` take precedence.

    Raises:
        ConfigError: for an unknown method, a repeated label, a setting that must be the same for all, or other text.
    """
    parts = [part for part in split_outside(text, ",") if part]
    variants = [parse_variant(part, tuned or {}) for part in parts]
    if not variants:
        raise ConfigError("--methods needs at least one method, such as fedavg,harmofl; see `harmofl methods`")
    by_folder: dict[str, Variant] = {}
    for part, variant in zip(parts, variants, strict=True):
        other = by_folder.setdefault(variant.folder.lower(), variant)
        if other.label == variant.label and other is not variant:
            free = next(label for label in ascii_lowercase if label not in by_folder)
            fix = f"give one another label, such as {free}={part.removeprefix(f'{variant.label}=')}"
            raise ConfigError(f"--methods: {variant.label!r} must be given once, got it twice; {fix}")
        if other is not variant:
            both = f"{other.label!r} and {variant.label!r} must have different folders"
            raise ConfigError(f"--methods: {both}, got {variant.folder} for both; change one label")
    _check_tables(variants, tuned)
    return variants


def _check_tables(variants: Sequence[Variant], tuned: Mapping[str, Any] | None) -> None:
    names = {*NAMES, *(variant.method for variant in variants), *(variant.label for variant in variants)}
    for table in tuned or {}:
        if table not in names:
            raise ConfigError(f"--tuned: table [{table}] must be a method or a label of --methods; remove or rename it")
    if tuned is not None and not any(v.label in tuned or v.method in tuned for v in variants):
        raise ConfigError(
            f"--tuned: must have a table for one of --methods, got {', '.join(tuned) or 'none'}; search first"
        )


def parse_variant(text: str, tuned: Mapping[str, Mapping[str, Any]]) -> Variant:
    """Parse one method specification, see `parse_variants`."""
    given_label, equals, _ = text.partition(":")[0].rpartition("=")
    label = given_label.strip() if equals else text
    if not label or not label.isprintable():
        raise ConfigError(f"--methods: a label must be one line of text, got {label!r} in {text!r}")
    try:
        name, given = parse_composition(text[len(given_label) + 1 :] if equals else text)
        changes = {**tuned.get(label, tuned.get(name, {})), **given}
        changes = {key.removeprefix("method."): value for key, value in changes.items()}
        table = canonical({"name": name, **{key: value for key, value in changes.items() if "." not in key}})
    except ConfigError as error:
        raise ConfigError(f"--methods: {error} in {text!r}") from None
    for key in changes:
        check_may_differ(key, f"method {label}")
    name = table.pop("name")
    variant = Variant(label, name, {**table, **{key: value for key, value in changes.items() if "." in key}})
    if variant.folder.lower() in RESERVED:
        raise ConfigError(
            f"--methods: a label must not be the name of a file of the comparison, got {variant.folder}; choose another"
        )
    return variant


def with_common(variants: Sequence[Variant], common: Mapping[str, Any]) -> list[Variant]:
    """Apply shared hyperparameters to the methods that define them; a variant's own values win.

    Raises:
        ConfigError: if no method uses a hyperparameter.
    """
    for key in common:
        check_may_differ(key, "--set")
        if not any(_uses(variant, key) for variant in variants):
            methods = ", ".join(dict.fromkeys(variant.method for variant in variants))
            raise ConfigError(
                f"--set {key}: a method must have this hyperparameter, got {methods}; add its part, as in fedavg+sam"
            )
    return [
        replace(variant, changes={**{k: v for k, v in common.items() if _uses(variant, k)}, **variant.changes})
        for variant in variants
    ]


def _uses(variant: Variant, key: str) -> bool:
    name = key.removeprefix("method.")
    known = describe(variant.method).hyperparameters
    return name in known or RENAMED.get(name, name) in known


def read_tuned(path: Path) -> dict[str, dict[str, Any]]:
    """Read the result of `harmofl search`: a table of changes for each method.

    Raises:
        ConfigError: if the file is missing or has another form.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: must be the tuned.toml of `harmofl search`, but {error}; check the path") from None
    if not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(
            f"{path}: must hold only tables, one per method, as `harmofl search` writes it; delete the other values"
        )
    return tables
