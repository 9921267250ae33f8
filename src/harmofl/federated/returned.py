"""Checks of what the functions of methods and parts return, as those of a user's own."""

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from numbers import Real
from typing import Any, TypeVar

from torch import Tensor, nn

from harmofl.errors import ConfigError
from harmofl.federated.messages import Broadcast, ServerState

T = TypeVar("T")
RETURNS: Mapping[str, type] = {
    "model": nn.Module,
    "start": ServerState,
    "broadcast": Broadcast,
    "shares": Iterable,
    "server_step": tuple,
    "aggregate": ServerState,
    "objective": Tensor,
    "backward": Tensor,
    "gradient": Tensor,
    "local_step": Tensor,
    "report": tuple,
    "personal_weights": Mapping,
    "weights_for_new_site": Mapping,
    "remarks": list,
    "weight": Real,
}
"""What a function must return, by its name; a tensor is a loss, a tuple two dicts."""
_WORDS: Mapping[type, str] = {
    Tensor: "the loss, a tensor of one number",
    tuple: "a tuple of two dicts",
    Mapping: "a dict",
    Iterable: "a list",
    Real: "a number",
}


def returned(owner: object, function: str, kind: type[T], value: Any) -> T:
    """Return the value; raise ConfigError unless it is what the function of a method or a part must return.

    Args:
        owner: the method or the part.
        function: the name of its function.
        kind: see `RETURNS`.
        value: what it returned.
    """
    fits = isinstance(value, kind)
    if isinstance(value, Tensor):
        fits = fits and value.numel() == 1
    elif isinstance(value, tuple):
        fits = fits and len(value) == 2 and all(isinstance(one, Mapping) for one in value)
    if not fits:
        must = _WORDS.get(kind, f"a {kind.__name__}")
        got = tuple(value.shape) if isinstance(value, Tensor) else "None" if value is None else type(value).__name__
        raise ConfigError(f"{owner}: {function}() must return {must}, got {got}; end it with a return of one")
    found: T = value
    return found


def check_returns(cls: type) -> None:
    """Let the functions that a class defines check what they return."""
    for name in RETURNS.keys() & vars(cls).keys():
        setattr(cls, name, _checked(name, vars(cls)[name]))


def _checked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def checked(self: object, *args: Any, **options: Any) -> Any:
        return returned(self, name, RETURNS[name], function(self, *args, **options))

    return checked
