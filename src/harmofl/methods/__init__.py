"""Methods by their name on the command line, imported at first access."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from harmofl.errors import ConfigError
from harmofl.methods import plugins
from harmofl.methods.catalogue import HOMES, NAMES, PRESETS, composition_of
from harmofl.methods.composition import canonical, check_names, describe, terms
from harmofl.utils.lazy_imports import lazily as _lazily

if TYPE_CHECKING:
    from harmofl.methods.fedavg import FedAvg
    from harmofl.methods.fedsam import FedSAM
    from harmofl.methods.parts.normalizers import Amplitude, RadialProfile
    from harmofl.methods.parts.steps import ASAM, SAM

__all__ = ["ASAM", "METHODS", "SAM", "Amplitude", "FedAvg", "FedSAM", "RadialProfile", "make_method"]

__getattr__ = _lazily(__name__, {cls: module for module, cls in HOMES.values()})


class _Methods(Mapping[str, "FedAvg"]):
    """Mapping from a method's name to the method with its default hyperparameters.

    It iterates over the methods of this package; compositions such as `fedprox+sam` and a user's own, by dotted
    name or entry point, are found too.
    """

    def __getitem__(self, name: str) -> "FedAvg":
        try:
            return make_method(name, {})
        except ValueError as error:
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


METHODS: Mapping[str, "FedAvg"] = _Methods()


def make_method(name: str, options: Mapping[str, Any]) -> "FedAvg":
    """Return a method.

    Args:
        name: a composition such as `harmofl` or `fedprox:mu=1+amplitude+sam`, see `harmofl.methods.composition`.
        options: further hyperparameters of the method and its parts.

    Raises:
        ConfigError: if the name or a hyperparameter is unknown, or a value is out of range.
    """
    table = canonical({"name": name, **options})
    name = table.pop("name")
    check_names(name, table)
    known = describe(name)
    values = {key: field.default for key, field in known.hyperparameters.items()} | table
    try:
        parts = {
            slot: _class(part, plugins.own_part)(**{k: values[k] for k in known.of_parts[slot]})
            for slot, part in known.parts.items()
        }
        made: FedAvg = _class(terms(name)[0], plugins.own_method)(**{key: values[key] for key in known.own}, **parts)
    except ConfigError:
        raise
    except Exception as error:  # of a user's own class
        raise ConfigError(f"{name} must be made of its hyperparameters, got {type(error).__name__}: {error}") from error
    return made


def hyperparameters_of(method: "FedAvg") -> dict[str, Any]:
    """Return the values of a method and of its parts by name."""
    from harmofl.methods.hyperparameters import Hyperparameters

    found = dict[str, Any]()
    for field in fields(method):
        value = getattr(method, field.name)
        if not isinstance(value, Hyperparameters):
            found[field.name] = value
        elif field.init:
            found |= vars(value)
    return found


def search_space(method: "FedAvg") -> dict[str, tuple[float, float]]:
    """Return the hyperparameters that `harmofl search` tries, of the method and of its parts."""
    return {**method.search_space, **method.normalize.search_space, **method.step.search_space}


def _class(name: str, own: Callable[[str], type]) -> Any:
    """Import the class of a method or a part; `own` returns that of a user."""
    if name in PRESETS:
        return _class(terms(composition_of(name)[0])[0].partition(":")[0], own)
    if name not in HOMES:
        return own(name)
    module, cls = HOMES[name]
    return getattr(import_module(f"{__name__}.{module}"), cls)
