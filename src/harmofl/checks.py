"""What hyperparameters are checked with."""

import math
from numbers import Real

from harmofl.errors import ConfigError


def check_within(name: str, value: object, allowed: str) -> None:
    """Raise ConfigError unless the value of this hyperparameter is allowed.

    Args:
        name: named in the error.
        value: a number or a word.
        allowed: intervals and single values, with " or " between them: "[0, 1) or off"; "whole [1, inf)" is of whole
            numbers.
    """
    choices = allowed.split(" or ")
    if not any(_is_within(value, choice) for choice in choices):
        *first, last = map(_in_words, choices)
        words = f"{', '.join(first)} or {last}" if first else last
        raise ConfigError(f"{name} must be {words}, got {value!r}")


def _is_within(value: object, choice: str) -> bool:
    if "," in choice:
        low, high = _ends(choice)
        if not isinstance(value, int if choice.startswith("whole") else Real) or isinstance(value, bool):
            return False
        number = float(value)
        return (number >= low if "[" in choice else number > low) and (
            number <= high if "]" in choice else number < high
        )
    if isinstance(value, bool):
        return choice == str(value).lower()
    return choice == (f"{value:g}" if isinstance(value, Real) else value)


def _in_words(choice: str) -> str:
    if "," not in choice:
        return choice
    low, high = _ends(choice)
    whole = choice.startswith("whole")
    if high == math.inf:
        number = "a whole number" if whole else "a finite number"
        return f"{number} {'of at least' if '[' in choice else 'above'} {low:g}"
    first, last = "" if "[" in choice else "above ", "" if "]" in choice else "below "
    return f"a {'whole ' * whole}number from {first}{low:g} to {last}{high:g}"


def _ends(interval: str) -> tuple[float, float]:
    low, high = interval.removeprefix("whole ")[1:-1].split(",")
    return float(low), float(high)
