"""Tables of the configuration of runs, and of the settings that differ between runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harmofl.experiment.finished_run import Run
from harmofl.report.scores import DASH

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
    return [SettingsTable(name, tuple(_flatten(table))) for name, table in named]


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return the settings that differ between runs, with each run's value."""
    flat = [dict(_flatten(run.config)) for run in runs]
    keys = dict.fromkeys(key for pairs in flat for key in pairs)
    rows = [(key, [pairs.get(key, DASH) for pairs in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(_text(part) for part in value) if isinstance(value, list) else str(value)
