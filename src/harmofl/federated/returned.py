"""Checks of what the functions of a method return, as those of a user's own."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from harmofl.errors import ConfigError

if TYPE_CHECKING:
    from harmofl.federated.messages import ClientState, Extras

T = TypeVar("T")


def returned(owner: object, function: str, kind: type[T], value: Any) -> T:
    """Return the value; raise ConfigError unless it is of the kind, and one number if it is a tensor.

    Args:
        owner: the method or the part.
        function: the name of its function.
        kind: what the function must return; a tensor is a loss.
        value: what it returned.
    """
    if isinstance(value, kind) and not (isinstance(value, Tensor) and value.numel() != 1):
        return value
    must = "the loss, a tensor of one number" if issubclass(kind, Tensor) else f"a {kind.__name__}"
    got = tuple(value.shape) if isinstance(value, Tensor) else "None" if value is None else type(value).__name__
    raise ConfigError(f"{owner}: {function}() must return {must}, got {got}; end it with a return of one")


def reported(owner: object, value: Any) -> tuple["Extras", "ClientState"]:
    """Return what `report` returned; raise ConfigError unless it is a pair of mappings."""
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(one, Mapping) for one in value):
        return value
    raise ConfigError(f"{owner}: report() must return two dicts, what is sent and what is kept, got {value!r:.80}")
