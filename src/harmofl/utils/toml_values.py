"""Values of TOML tables and of the command line."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any


def parse_value(text: str) -> Any:
    """Parse a value of the command line as TOML, or else as text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def flat_settings(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings with their dotted key, such as `method.rho`."""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from flat_settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
