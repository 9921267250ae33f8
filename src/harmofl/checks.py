"""What hyperparameters are checked with."""

import math
from numbers import Real

from harmofl.errors import ConfigError


def is_number(value: object) -> bool:
    """Whether it is a real number, NumPy's included; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_at_least(name: str, value: float, least: float) -> None:
    """Raise ConfigError unless the hyperparameter is a finite number of at least `least`."""
    if not is_number(value) or not least <= value < math.inf:
        raise ConfigError(f"{name} must be a finite number of at least {least}, got {value!r}")


def check_between(name: str, value: float, least: float, most: float) -> None:
    """Raise ConfigError unless the hyperparameter is a number from `least` to `most`."""
    if not is_number(value) or not least <= value <= most:
        raise ConfigError(f"{name} must be a number from {least} to {most}, got {value!r}")


def check_below(name: str, value: float, bound: float) -> None:
    """Raise ConfigError unless the hyperparameter is a number from 0 to below `bound`."""
    if not is_number(value) or not 0 <= value < bound:
        raise ConfigError(f"{name} must be a number from 0 to below {bound}, got {value!r}")


def check_above(name: str, value: float, bound: float) -> None:
    """Raise ConfigError unless the hyperparameter is a finite number above `bound`."""
    if not is_number(value) or not bound < value < math.inf:
        raise ConfigError(f"{name} must be a finite number above {bound}, got {value!r}")
