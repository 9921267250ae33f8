"""The methods, by the name they have on the command line."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from harmofl.checks import is_number
from harmofl.errors import ConfigError
from harmofl.methods.fedavg import FedAvg
from harmofl.methods.fedsam import FedSAM
from harmofl.methods.harmofl import HarmoFL, HarmoFLReleased

__all__ = ["METHODS", "FedAvg", "FedSAM", "HarmoFL", "HarmoFLReleased", "make_method"]

METHODS: Mapping[str, type[FedAvg]] = {
    "fedavg": FedAvg,
    "fedsam": FedSAM,
    "harmofl": HarmoFL,
    "harmofl-released": HarmoFLReleased,
}


def make_method(name: str, options: Mapping[str, Any]) -> FedAvg:
    """The method called `name` with these hyperparameters.

    Raises:
        ConfigError: if the name or a hyperparameter is unknown, or a value is out of range.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {name!r}; see `harmofl methods`")
    known = {field.name: field for field in fields(METHODS[name])}
    for key, value in options.items():
        if key not in known:
            raise ConfigError(f"{name} has no hyperparameter {key!r}; it has {', '.join(known)}")
        if known[key].type is float and not is_number(value):
            raise ConfigError(f"method.{key} must be a number, got {value!r}")
    return METHODS[name](**options)
