"""Methods of users, by dotted name such as `my_package.MyMethod` or by an entry point of `harmofl.methods`."""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib import import_module, metadata
from typing import TYPE_CHECKING

from harmofl.errors import ConfigError
from harmofl.methods.catalogue import Hyperparameter

if TYPE_CHECKING:
    from harmofl.methods.fedavg import FedAvg

GROUP = "harmofl.methods"


@cache
def entry_points() -> Mapping[str, str]:
    """Return the dotted names of installed methods by their name."""
    return {point.name: point.value.replace(":", ".") for point in metadata.entry_points(group=GROUP)}


def own_method(name: str) -> type["FedAvg"]:
    """Import a method.

    Args:
        name: the dotted name of a subclass of `FedAvg`, or the name of an entry point.

    Raises:
        ConfigError: if it cannot be imported or is no such class.
    """
    from harmofl.methods.fedavg import FedAvg

    module, _, attribute = entry_points().get(name, name).rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"method: {name!r} must be importable, got {reason}; install it or set PYTHONPATH") from error
    if not (isinstance(found, type) and issubclass(found, FedAvg)):
        raise ConfigError(f"method: {name!r} must be a subclass of harmofl.FedAvg, got {found!r}")
    return found


def own_hyperparameters(method: type["FedAvg"]) -> dict[str, Hyperparameter]:
    """Return the fields of a method by name, with the values that `ranges` of its classes allow."""
    allowed: dict[str, str] = {}
    for cls in reversed(method.__mro__):
        allowed |= vars(cls).get("ranges", {})
    return {
        field.name: Hyperparameter(str(field.type), field.default, allowed.get(field.name, ""))
        for field in fields(method)
    }
