"""Methods by their name on the command line, imported at first access."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harmofl.errors import ConfigError
from harmofl.methods import own_methods
from harmofl.methods.catalogue import HOMES, Hyperparameter, described
from harmofl.utils.lazy_imports import lazily as _lazily
from harmofl.utils.validators import check_within

if TYPE_CHECKING:
    from harmofl.methods.fedavg import FedAvg
    from harmofl.methods.fedsam import FedSAM
    from harmofl.methods.harmofl import HarmoFL

__all__ = ["METHODS", "FedAvg", "FedSAM", "HarmoFL", "make_method"]

__getattr__ = _lazily(__name__, {cls: module for module, cls in HOMES.values()})


class _Methods(Mapping[str, type["FedAvg"]]):
    """Mapping from a method's name on the command line to its class.

    It iterates over the methods of this package; a user's own, by dotted name or entry point, are found too.
    """

    def __getitem__(self, name: str) -> type["FedAvg"]:
        found: type[FedAvg] = __getattr__(HOMES[name][1]) if name in HOMES else own_methods.own_method(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in HOMES or (isinstance(name, str) and ("." in name or name in own_methods.entry_points()))

    def __iter__(self) -> Iterator[str]:
        return iter(HOMES)

    def __len__(self) -> int:
        return len(HOMES)


METHODS: Mapping[str, type["FedAvg"]] = _Methods()


def make_method(name: str, options: Mapping[str, Any]) -> "FedAvg":
    """Return the method called `name` with these hyperparameters.

    Raises:
        ConfigError: if the name or a hyperparameter is unknown, or a value is out of range.
    """
    check_names(name, options)
    return METHODS[name](**options)


def check_names(name: str, options: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the method has these hyperparameters and each value is allowed.

    No method of this package is imported for that.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {name!r}; see `harmofl methods`")
    known: Mapping[str, Hyperparameter] = (
        described(name).hyperparameters if name in HOMES else own_methods.own_hyperparameters(METHODS[name])
    )
    for key, value in options.items():
        if key not in known:
            raise ConfigError(f"{name} has no hyperparameter {key!r}; it has {', '.join(known)}")
        if known[key].allowed:
            check_within(key, value, known[key].allowed)
