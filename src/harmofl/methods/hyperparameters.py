"""Base class of methods and of their parts."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from harmofl.errors import ConfigError
from harmofl.federated.returned import check_returns
from harmofl.methods.catalogue import name_of
from harmofl.utils.toml_values import value_text
from harmofl.utils.validators import check_within, is_allowed, is_notation


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Frozen hyperparameters, checked when the object is made; `str` returns the composition that makes it.

    Raises:
        ConfigError: if a value is out of range.
    """

    ranges: ClassVar[Mapping[str, str]] = {}
    """Allowed values of the hyperparameters that a class adds, in the notation of `validators.check_within`; without, a
    field takes all values of its type, see `OF_TYPES`."""
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Hyperparameters that `harmofl search` tries, from lowest to highest value, on a logarithmic scale."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not cls.__module__.startswith("harmofl."):
            check_returns(cls)

    def __post_init__(self) -> None:
        for name, allowed in ranges_of(type(self)).items():
            value = getattr(self, name)
            check_within(name, value, allowed)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))  # as a frozen object can be a key

    def __str__(self) -> str:
        values, parts = "", ""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.init and value != field.default:
                if isinstance(value, Hyperparameters):
                    parts += f"+{value}"
                else:
                    values += f":{field.name}={value_text(value)}"
        return name_of(type(self)) + values + parts


OF_TYPES: Mapping[str, str] = {
    "float": "(-inf, inf)",
    "int": "whole (-inf, inf)",
    "bool": "true or false",
    "str": "any text",
}
"""Allowed values of a field without `ranges`, by its type."""


def ranges_of(owner: type[Hyperparameters]) -> dict[str, str]:
    """Return the allowed values of the fields of a class, by name.

    Raises:
        ConfigError: if its `ranges` name no field, or do not follow the notation.
    """
    found = dict[str, str]()
    known = {field.name: field for field in fields(owner) if not isinstance(field.default, Hyperparameters)}
    for name, field in known.items():
        allowed = OF_TYPES.get(getattr(field.type, "__name__", str(field.type)))
        if allowed and is_allowed(field.default, allowed):
            found[name] = allowed
    for cls in reversed(owner.__mro__):
        for name, allowed in dict(vars(cls).get("ranges", {})).items():
            where = f"{name_of(owner)}: ranges must"
            if name not in known:
                raise ConfigError(f"{where} name fields, got {name!r}; its fields are {', '.join(known) or 'none'}")
            if not is_notation(allowed):
                raise ConfigError(f"{where} be as in '[0, 1) or off' or 'whole [1, inf)', got {allowed!r} for {name}")
            found[name] = allowed
    return found
