"""Values of the command line."""

import tomllib
from typing import Any


def parse_value(text: str) -> Any:
    """Parse a value of the command line as TOML, or else as text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
