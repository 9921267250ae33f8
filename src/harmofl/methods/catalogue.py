"""Names, summaries and hyperparameters of the methods, read from their source.

Importing a method imports torch, which takes seconds; commands that list or check methods need neither.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

HOMES: Final[Mapping[str, tuple[str, str]]] = {
    "fedavg": ("fedavg", "FedAvg"),
    "harmofl": ("harmofl", "HarmoFL"),
    "harmofl-released": ("harmofl_released", "HarmoFLReleased"),
    "harmofl-profile": ("harmofl_profile", "HarmoFLProfile"),
    "fedprox": ("fedprox", "FedProx"),
    "fednova": ("fednova", "FedNova"),
    "fedavgm": ("fedavgm", "FedAvgM"),
    "fedadam": ("fedadam", "FedAdam"),
    "fedyogi": ("fedyogi", "FedYogi"),
    "scaffold": ("scaffold", "Scaffold"),
    "feddyn": ("feddyn", "FedDyn"),
    "moon": ("moon", "MOON"),
    "fedbn": ("fedbn", "FedBN"),
    "silobn": ("silobn", "SiloBN"),
    "fedsam": ("fedsam", "FedSAM"),
    "fedasam": ("fedasam", "FedASAM"),
    "mofedsam": ("mofedsam", "MoFedSAM"),
    "fedgamma": ("fedgamma", "FedGAMMA"),
    "fedspeed": ("fedspeed", "FedSpeed"),
    "fedsmoo": ("fedsmoo", "FedSMOO"),
    "fedlesam": ("fedlesam", "FedLESAM"),
    "fedfa": ("fedfa", "FedFA"),
    "feddg": ("feddg", "FedDG"),
    "ditto": ("ditto", "Ditto"),
    "fedrep": ("fedrep", "FedRep"),
    "local": ("local_only", "Local"),
    "pooled": ("pooled", "Pooled"),
}
"""The module in this package and the class of each method, by its name on the command line."""


@dataclass(frozen=True)
class Hyperparameter:
    """One field of a method.

    Args:
        type: its annotation.
        default: its default value.
        allowed: its values, in the notation of `validators.check_within`; "" if it is checked with the network.
    """

    type: str
    default: Any
    allowed: str


@dataclass(frozen=True)
class Description:
    """Description of a method that does not import it.

    Args:
        about: first line of its module's docstring, after the name.
        hyperparameters: all hyperparameters by name, FedAvg's first.
    """

    about: str
    hyperparameters: Mapping[str, Hyperparameter]


@cache
def described(name: str) -> Description:
    """Describe the method called `name`, a key of `HOMES`."""
    module, cls = HOMES[name]
    about = (ast.get_docstring(_tree(module)) or "").splitlines()[0].partition(": ")[2]
    return Description(about, _fields(module, cls))


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(files(__package__).joinpath(f"{module}.py").read_text(encoding="utf-8"))


def _fields(module: str, cls: str) -> dict[str, Hyperparameter]:
    """Return the fields of a frozen dataclass and its bases, in the order of dataclasses."""
    homes = {cls: module for module, cls in HOMES.values()}
    node = next(node for node in _tree(module).body if isinstance(node, ast.ClassDef) and node.name == cls)
    found: dict[str, Hyperparameter] = {}
    for base in node.bases:
        name = ast.unparse(base)
        found |= _fields(homes[name], name)
    own = {
        ast.unparse(line.target): (ast.unparse(line.annotation), ast.literal_eval(line.value))
        for line in node.body
        if isinstance(line, ast.AnnAssign) and line.value
    }
    _, ranges = own.get("ranges", ("", {}))
    for field, (annotation, default) in own.items():
        if not annotation.startswith("ClassVar"):
            inherited = found[field].allowed if field in found else ""
            found[field] = Hyperparameter(annotation, default, ranges.get(field, inherited))
    return found
