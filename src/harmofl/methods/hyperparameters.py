"""Base class of methods and of their parts."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from harmofl.methods.catalogue import name_of
from harmofl.utils.validators import check_ranges


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Frozen hyperparameters, checked when the object is made; `str` returns the composition that makes it.

    Raises:
        ConfigError: if a value is out of range.
    """

    ranges: ClassVar[Mapping[str, str]] = {}
    """Allowed values of the hyperparameters that a class adds, in the notation of `validators.check_within`."""
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Hyperparameters that `harmofl search` tries, from lowest to highest value, on a logarithmic scale."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def __str__(self) -> str:
        values, parts = "", ""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.init and value != field.default:
                if isinstance(value, Hyperparameters):
                    parts += f"+{value}"
                else:
                    values += f":{field.name}={value}"
        return name_of(type(self)) + values + parts
