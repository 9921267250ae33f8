"""Names, summaries and hyperparameters of methods and their parts, read from their source.

Importing a method imports torch, which takes seconds; commands that list or check methods need neither.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

Slot = Literal["normalize", "step", "average"]
"""Place of a part in a method."""

METHODS: Final[Mapping[str, tuple[str, str]]] = {
    "fedavg": ("fedavg", "FedAvg"),
    "harmofl": ("harmofl", ""),
    "harmofl-released": ("harmofl_released", ""),
    "harmofl-contrast": ("harmofl_contrast", ""),
    "harmofl-profile": ("harmofl_profile", ""),
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
    "fedasam": ("fedasam", ""),
    "mofedsam": ("mofedsam", "MoFedSAM"),
    "fedgamma": ("fedgamma", ""),
    "fedspeed": ("fedspeed", "FedSpeed"),
    "fedsmoo": ("fedsmoo", "FedSMOO"),
    "fedlesam": ("fedlesam", "FedLESAM"),
    "fedfa": ("fedfa", "FedFA"),
    "feddg": ("feddg", "FedDG"),
    "ditto": ("ditto", "Ditto"),
    "fedrep": ("fedrep", "FedRep"),
    "local": ("local_only", "Local"),
    "pooled": ("pooled", ""),
}
"""The module in this package and the class of each method, by name in the order of lists; "" for a composition."""
NAMES: Final = tuple(METHODS)
PRESETS: Final = {name: module for name, (module, cls) in METHODS.items() if not cls}
"""The module of each method that is a composition of others, see `harmofl.methods.composition`."""

PARTS: Final[Mapping[str, tuple[Slot, str, str]]] = {
    "identity": ("normalize", "parts.normalizers", "Identity"),
    "amplitude": ("normalize", "parts.normalizers", "Amplitude"),
    "profile": ("normalize", "parts.normalizers", "RadialProfile"),
    "zscore": ("normalize", "parts.normalizers", "ZScore"),
    "histogram": ("normalize", "parts.normalizers", "Histogram"),
    "reinhard": ("normalize", "parts.normalizers", "Reinhard"),
    "macenko": ("normalize", "parts.normalizers", "Macenko"),
    "stain-jitter": ("normalize", "parts.normalizers", "JitteredStains"),
    "amplitude-jitter": ("normalize", "parts.normalizers", "JitteredAmplitude"),
    "plain": ("step", "parts.steps", "Plain"),
    "sam": ("step", "parts.steps", "SAM"),
    "asam": ("step", "parts.steps", "ASAM"),
    "mean": ("average", "parts.averages", "Mean"),
    "median": ("average", "parts.averages", "Median"),
    "trimmed": ("average", "parts.averages", "Trimmed"),
    "clipped": ("average", "parts.averages", "Clipped"),
}
"""The slot, the module in this package and the class of each part, by its name."""

HOMES: Final = {n: home for n, home in METHODS.items() if home[1]} | {n: home for n, (_, *home) in PARTS.items()}
"""The module and the class of each method and part that has code of its own."""

Arrangement = Literal["federated", "pooled", "local"]


def arrangement(name: str) -> Arrangement:
    """Return the place of training: federated sites, one place with all images pooled, or each site alone."""
    head = name.partition("+")[0]
    return "pooled" if head == "pooled" else "local" if head == "local" else "federated"


@dataclass(frozen=True)
class Hyperparameter:
    """One field of a method or a part.

    Args:
        default: its default value.
        allowed: its values, in the notation of `validators.check_within`; "" if it is checked with the network.
    """

    default: Any
    allowed: str


@dataclass(frozen=True)
class Description:
    """Description of a class that does not import it.

    Args:
        about: first line of its docstring, or of its module's after the name.
        own: its hyperparameters by name, those of bases first.
        parts: name of the part in each slot, for a method; a method that defines its own step has no such slot.
        of_parts: hyperparameters of the part in each slot.
    """

    about: str
    own: Mapping[str, Hyperparameter]
    parts: Mapping[str, str]
    of_parts: Mapping[str, Mapping[str, Hyperparameter]]

    @property
    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """Hyperparameters by name: the method's, then those of its parts."""
        found = dict(self.own)
        for fields in self.of_parts.values():
            found |= fields
        return found

    def having(self, defaults: Mapping[str, Any]) -> "Description":
        """Return the description with other defaults."""

        def changed(fields: Mapping[str, Hyperparameter]) -> dict[str, Hyperparameter]:
            return {k: replace(field, default=defaults.get(k, field.default)) for k, field in fields.items()}

        of_parts = {slot: changed(fields) for slot, fields in self.of_parts.items()}
        return replace(self, own=changed(self.own), of_parts=of_parts)


def name_of(owner: type) -> str:
    """Return the name of a method or a part of this package, or the dotted name of another class."""
    names = {f"{__package__}.{module}.{cls}": name for name, (module, cls) in HOMES.items()}
    dotted = f"{owner.__module__}.{owner.__qualname__}"
    return names.get(dotted, dotted)


@cache
def class_description(name: str) -> Description:
    """Describe a method or a part with code of its own, a key of `HOMES`."""
    module, cls = HOMES[name]
    fields, calls = _fields(module, cls)
    about = (ast.get_docstring(_class(module, cls)) or "").splitlines()[0] if name in PARTS else _about(module)
    parts, of_parts = {}, {}
    for place, call in calls.items():
        part, defaults = _part(call)
        parts[place] = part
        of_parts[place] = class_description(part).having(defaults).own
    return Description(about, fields, parts, of_parts)


def composition_of(name: str) -> tuple[str, str]:
    """Return the composition that a method of `PRESETS` is, and its summary."""
    lines = (line for line in _tree(PRESETS[name]).body if isinstance(line, ast.Assign))
    return next(str(ast.literal_eval(line.value)) for line in lines), _about(PRESETS[name])


def _about(module: str) -> str:
    return (ast.get_docstring(_tree(module)) or "").splitlines()[0].partition(": ")[2]


def _part(call: ast.Call) -> tuple[str, dict[str, Any]]:
    """Return the name and the hyperparameters of a default such as `SAM(rho=0.1)`."""
    names = {cls: name for name, (_, _, cls) in PARTS.items()}
    return names[ast.unparse(call.func)], {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(files(__package__).joinpath(f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


def _class(module: str, cls: str) -> ast.ClassDef:
    return next(node for node in _tree(module).body if isinstance(node, ast.ClassDef) and node.name == cls)


def _fields(module: str, cls: str) -> tuple[dict[str, Hyperparameter], dict[str, ast.Call]]:
    """Return the fields of a frozen dataclass and its bases, in the order of dataclasses, and the default parts."""
    node = _class(module, cls)
    found, calls = dict[str, Hyperparameter](), dict[str, ast.Call]()
    for base in map(ast.unparse, node.bases):
        home = _home(base, module)
        if home:
            fields, defaults = _fields(home, base)
            found, calls = {**found, **fields}, {**calls, **defaults}
    lines = [line for line in node.body if isinstance(line, ast.AnnAssign) and line.value]
    ranges: dict[str, str] = next((ast.literal_eval(x.value) for x in lines if ast.unparse(x.target) == "ranges"), {})  # type: ignore[arg-type]
    for line in lines:
        name, annotation, value = ast.unparse(line.target), ast.unparse(line.annotation), line.value
        if annotation.startswith("ClassVar"):
            continue
        if not isinstance(value, ast.Call):
            inherited = found[name].allowed if name in found else ""
            found[name] = Hyperparameter(ast.literal_eval(value), ranges.get(name, inherited))  # type: ignore[arg-type]
        elif ast.unparse(value.func) == "field":  # the method's own step takes no part
            del calls[name]
        else:
            calls[name] = value
    return found, calls


def _home(base: str, module: str) -> str:
    """Return the module of a base class, or "" for one outside of the methods and parts."""
    homes = {cls: home for home, cls in HOMES.values()}
    here = any(isinstance(node, ast.ClassDef) and node.name == base for node in _tree(module).body)
    return module if here else homes.get(base, "")
