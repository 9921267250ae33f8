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


def value_text(value: object) -> str:
    """Return a value as `parse_value` reads it, a tuple as a list without spaces."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def flat_settings(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings with their dotted key, such as `method.rho`."""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from flat_settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def split_outside(text: str, separator: str) -> list[str]:
    """Split at a character outside of double quotes and brackets; strip the pieces."""
    pieces, depth, quoted = [""], 0, False
    for character in text:
        quoted ^= character == '"'
        depth += 0 if quoted else (character in "[{(") - (character in "]})")
        if character == separator and depth <= 0 and not quoted:
            pieces.append("")
        else:
            pieces[-1] += character
    return [piece.strip() for piece in pieces]
