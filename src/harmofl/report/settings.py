"""Tables of the configuration of runs, and of the settings that differ between runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harmofl.experiment.finished_run import Run
from harmofl.report.scores import DASH
from harmofl.utils.toml_values import flat_settings

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SettingsTable:
    """One table of config.toml."""

    name: str
    pairs: Pairs


def sections(config: Mapping[str, Any]) -> list[SettingsTable]:
    """Return the tables of a configuration; keys outside any table come first."""
    loose = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    named = ([("general", loose)] if loose else []) + list(tables.items())
    return [SettingsTable(name, _texts(table)) for name, table in named]


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return the settings that differ between runs, with each run's value."""
    flat = [dict(_texts(run.config)) for run in runs]
    keys = dict.fromkeys(key for pairs in flat for key in pairs)
    rows = [(key, [pairs.get(key, DASH) for pairs in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _texts(table: Mapping[str, Any]) -> Pairs:
    return tuple((key, _text(value)) for key, value in flat_settings(table))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(_text(part) for part in value) if isinstance(value, list) else str(value)
