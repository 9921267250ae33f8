"""Range checks of hyperparameters."""

import math
import re
from numbers import Integral, Real

from harmofl.errors import ConfigError

_NUMBER = r"-?(?:inf|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)"
_CHOICE = re.compile(rf"any text|[^\W\d_]+|{_NUMBER}|(?:whole |list of )?[\[(]{_NUMBER}, *{_NUMBER}[\])]")
_LIST = "list of "


def check_within(name: str, value: object, allowed: str) -> None:
    """Raise ConfigError unless the value of a hyperparameter is allowed.

    Args:
        name: name of the hyperparameter, for the error message.
        value: a number, a word, or a list or tuple of numbers.
        allowed: intervals and single values, separated by " or ": "[0, 1) or off"; "whole [1, inf)" allows only
            whole numbers, "list of (0, inf)" a list of any length with numbers of the interval, "any text" all text.
    """
    if not is_allowed(value, allowed):
        *first, last = map(_in_words, allowed.split(" or "))
        words = f"{', '.join(first)} or {last}" if first else last
        got = list(value) if isinstance(value, tuple) else value  # as it is written in tables
        raise ConfigError(f"{name} must be {words}, got {got!r}")


def is_allowed(value: object, allowed: str) -> bool:
    """Return True for a value that `check_within` allows."""
    return any(_is_within(value, choice) for choice in allowed.split(" or "))


def is_notation(allowed: object) -> bool:
    """Return True for text that `check_within` can read."""
    return isinstance(allowed, str) and all(_CHOICE.fullmatch(choice) for choice in allowed.split(" or "))


def _is_within(value: object, choice: str) -> bool:
    if choice == "any text":
        return isinstance(value, str)
    if choice.startswith(_LIST):
        inside = choice.removeprefix(_LIST)
        return isinstance(value, list | tuple) and all(_is_within(number, inside) for number in value)
    if isinstance(value, list | tuple):
        return False
    if isinstance(value, str):
        return value == choice and value.isalpha() and value not in ("true", "false")
    if str(value) in ("True", "False"):  # also NumPy's bool
        return choice == str(value).lower()
    if not isinstance(value, Integral if choice.startswith("whole") else Real):
        return False
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond the range of float
        return False
    if "," not in choice:
        return not choice.isalpha() and number == float(choice)
    low, high = _ends(choice)
    return low < number < high or ("[" in choice and number == low) or ("]" in choice and number == high)


def _in_words(choice: str) -> str:
    if "," not in choice:
        return choice
    if choice.startswith(_LIST):
        return f"a list of numbers, each {_in_words(choice.removeprefix(_LIST))}"
    low, high = _ends(choice)
    whole = choice.startswith("whole")
    if high == -low == math.inf:
        return "a whole number" if whole else "a finite number"
    if high == math.inf:
        number = "a whole number" if whole else "a finite number"
        return f"{number} {'of at least' if '[' in choice else 'above'} {low:g}"
    first, last = "" if "[" in choice else "above ", "" if "]" in choice else "below "
    return f"a {'whole ' * whole}number from {first}{low:g} to {last}{high:g}"


def _ends(interval: str) -> tuple[float, float]:
    low, high = interval.removeprefix("whole ")[1:-1].split(",")
    return float(low), float(high)
