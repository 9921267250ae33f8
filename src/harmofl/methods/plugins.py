"""Methods and parts of users, by dotted name such as `my_package.MyMethod` or by an entry point."""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from functools import cache
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from harmofl.errors import ConfigError
from harmofl.methods.catalogue import Description, Hyperparameter, name_of

if TYPE_CHECKING:
    from harmofl.methods.fedavg import FedAvg
    from harmofl.methods.hyperparameters import Hyperparameters

METHODS, PARTS = "harmofl.methods", "harmofl.parts"
"""Groups of entry points."""


@cache
def entry_points(group: str) -> Mapping[str, str]:
    """Return the dotted names of installed methods or parts by their name."""
    return {point.name: point.value.replace(":", ".") for point in metadata.entry_points(group=group)}


def is_own(name: str, group: str) -> bool:
    """Return True for a dotted name or the name of an entry point of the group."""
    return "." in name or name in entry_points(group)


def own_method(name: str) -> type["FedAvg"]:
    """Import a method.

    Args:
        name: the dotted name of a subclass of `FedAvg`, or the name of an entry point.

    Raises:
        ConfigError: if it cannot be imported or is no such class.
    """
    from harmofl.methods.fedavg import FedAvg

    found: type[FedAvg] = _imported(name, METHODS, FedAvg, "harmofl.FedAvg")
    return found


def own_part(name: str) -> type["Hyperparameters"]:
    """Import a part, as `own_method` does; it must be a `Normalizer`, a `Step` or an `Average`."""
    from harmofl.methods.fedavg import SLOTS

    found: type[Hyperparameters] = _imported(name, PARTS, tuple(SLOTS.values()), "Normalizer, Step or Average")
    return found


def _imported(name: str, group: str, kind: Any, must: str) -> Any:
    module, _, attribute = entry_points(group).get(name, name).rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        fix = f"mend {module}"
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            fix = "install it or set PYTHONPATH"
        elif loaded := sys.modules.get(module):
            close = get_close_matches(attribute, [key for key, x in vars(loaded).items() if isinstance(x, type)], 1)
            fix = f"did you mean {module}.{close[0]}?" if close else f"define it in {module}"
        raise ConfigError(f"method: {name!r} must be importable, got {reason}; {fix}") from error
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ConfigError(f"method: {name!r} must be a subclass of {must}, got {found!r}")
    return found


def slot_of(part: type["Hyperparameters"]) -> str:
    """Return the slot that a part is for."""
    from harmofl.methods.fedavg import SLOTS

    return next(slot for slot, kind in SLOTS.items() if issubclass(part, kind))


def own_description(owner: type) -> Description:
    """Describe a method or a part from its class."""
    from harmofl.methods.fedavg import SLOTS
    from harmofl.methods.hyperparameters import ranges_of

    _check_fields(owner)
    allowed = ranges_of(owner)
    _check_functions(owner)
    own, parts, of_parts = dict[str, Hyperparameter](), dict[str, str](), dict[str, dict[str, Hyperparameter]]()
    for field in fields(owner):
        if field.name not in SLOTS:
            own[field.name] = Hyperparameter(field.default, allowed.get(field.name, ""))
        elif field.init:
            described = own_description(type(field.default)).having(vars(field.default))
            parts[field.name], of_parts[field.name] = name_of(type(field.default)), dict(described.own)
    return Description((owner.__doc__ or " ").splitlines()[0], own, parts, of_parts)


def _check_fields(owner: type) -> None:
    """Raise ConfigError for a class that is no dataclass, or has a field without a default."""
    known, named = [field.name for field in fields(owner)], f"method: {owner.__module__}.{owner.__qualname__}"
    annotated = vars(owner).get("__annotations__", {}).items()
    if bare := [key for key, kind in annotated if "ClassVar" not in str(kind) and key not in known]:
        raise ConfigError(f"{named} must be a @dataclass(frozen=True, kw_only=True), but {bare[0]} is no field of it")
    if bare := [field.name for field in fields(owner) if field.default is MISSING]:
        raise ConfigError(f"{named}: {bare[0]} must have a default value")


def _check_functions(owner: type) -> None:
    """Raise ConfigError unless a class defines what its kind must, with the arguments that it is called with."""
    from harmofl.methods.fedavg import SLOTS, FedAvg

    kinds: tuple[type, ...] = (FedAvg, *SLOTS.values())
    kind = next(kind for kind in kinds if issubclass(owner, kind))
    for function, base in inspect.getmembers(kind, inspect.isfunction):
        found = inspect.getattr_static(owner, function)
        if not inspect.isfunction(found) or (function.startswith("_") and function != "__call__"):
            continue
        asked = list(inspect.signature(base).parameters)
        missing = found is base and function in ("layer", "gradient", "__call__") and kind is not FedAvg
        try:
            inspect.signature(found).bind(*asked)
        except TypeError:
            got = f", got {function}{inspect.signature(found)}"
        else:
            got = ""
        if missing or got:
            must = f"{function}({', '.join(asked)})"
            raise ConfigError(f"{name_of(owner)}: every {kind.__name__} must define {must}{got}; define it so")
