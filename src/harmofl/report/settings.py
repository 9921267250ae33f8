"""Tables of the configuration of runs, and of the settings that differ between runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from harmofl.experiment.finished_run import Run
from harmofl.report.scores import DASH
from harmofl.utils.toml_values import flat_settings

Pairs = tuple[tuple[str, str], ...]


def sections(config: Mapping[str, Any]) -> list[tuple[str, Pairs]]:
    """Return name and settings of each table of a configuration; keys outside any table come first."""
    loose = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    return [(name, _texts(table)) for name, table in {"general": loose, **tables}.items() if table or name != "general"]


def differences(runs: Sequence[Run]) -> list[list[str]]:
    """Return the settings that differ between runs, each followed by the runs' values."""
    flat = [dict(_texts(run.config)) for run in runs]
    keys = dict.fromkeys(key for pairs in flat for key in pairs)
    rows = [[key, *(pairs.get(key, DASH) for pairs in flat)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def _texts(table: Mapping[str, Any]) -> Pairs:
    return tuple((key, _text(value)) for key, value in flat_settings(table))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(_text(part) for part in value) if isinstance(value, list) else str(value)
