"""Base class of the parts of a method."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harmofl.utils.validators import check_ranges


@dataclass(frozen=True, kw_only=True)
class Part:
    """Frozen hyperparameters of a part; they are checked when it is made.

    Raises:
        ConfigError: if a value is out of range.
    """

    ranges: ClassVar[Mapping[str, str]] = {}
    """Allowed values of the hyperparameters that a class adds, in the notation of `validators.check_within`."""
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Hyperparameters that `harmofl search` tries, from lowest to highest value, on a logarithmic scale."""

    def __post_init__(self) -> None:
        check_ranges(self)
