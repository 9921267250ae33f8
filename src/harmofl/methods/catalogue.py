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

HOMES: Final[Mapping[str, tuple[str, str]]] = {
    "fedavg": ("fedavg", "FedAvg"),
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
    "mofedsam": ("mofedsam", "MoFedSAM"),
    "fedspeed": ("fedspeed", "FedSpeed"),
    "fedsmoo": ("fedsmoo", "FedSMOO"),
    "fedlesam": ("fedlesam", "FedLESAM"),
    "fedfa": ("fedfa", "FedFA"),
    "feddg": ("feddg", "FedDG"),
    "ditto": ("ditto", "Ditto"),
    "fedrep": ("fedrep", "FedRep"),
    "local": ("local_only", "Local"),
}
"""The module in this package and the class of each method that has code of its own, by its name."""

PARTS: Final[Mapping[str, tuple[Slot, str, str]]] = {
    "identity": ("normalize", "parts/normalizers", "Identity"),
    "amplitude": ("normalize", "parts/normalizers", "Amplitude"),
    "profile": ("normalize", "parts/normalizers", "RadialProfile"),
    "plain": ("step", "parts/steps", "Plain"),
    "sam": ("step", "parts/steps", "SAM"),
    "asam": ("step", "parts/steps", "ASAM"),
    "mean": ("average", "parts/averages", "Mean"),
    "median": ("average", "parts/averages", "Median"),
    "trimmed": ("average", "parts/averages", "Trimmed"),
    "clipped": ("average", "parts/averages", "Clipped"),
}
"""The slot, the module in this package and the class of each part, by its name."""


@dataclass(frozen=True)
class Preset:
    """A method that is a sum of others: a name for it, and its hyperparameters.

    Args:
        sum: a method and its parts, see `harmofl.methods.composition`.
        about: one line.
        source: paper or code.
    """

    sum: str
    about: str
    source: str


PRESETS: Final[Mapping[str, Preset]] = {
    "harmofl": Preset(
        "fedavg+amplitude+sam",
        "one amplitude for the images of all sites, and perturbed local steps.",
        "Jiang, Wang, Dou, AAAI 2022, Algorithm 1, min_w sum_i p_i f_i(w + delta; Psi(x)). "
        "https://arxiv.org/abs/2112.10775",
    ),
    "harmofl-released": Preset(
        "fedavg+amplitude:band=0.0:decay=0.0+sam",
        "HarmoFL as in its authors' code, which replaces only the mean level of each image.",
        "github.com/med-air/HarmoFL: Psi(x) = x - mean(x) + the mean level of the first training batch, since the code "
        "truncates v to 0 and replaces only the zero frequency. https://arxiv.org/abs/2112.10775",
    ),
    "harmofl-profile": Preset(
        "fedavg+profile:per=site:strength=0.5",
        "HarmoFL with the radial profile instead of the whole amplitude; a variant of this package.",
        "After HarmoFL, Eq 3-4; the values have the best validation scores in docs/results/methods.md: half the "
        "strength, one filter per site, plain steps. https://arxiv.org/abs/2112.10775",
    ),
    "fedasam": Preset(
        "fedavg+asam",
        "FedSAM with a perturbation in proportion to the size of each weight.",
        "Caldarola, Caputo, Ciccone, ECCV 2022, Section 4.1. https://arxiv.org/abs/2203.11834",
    ),
    "fedgamma": Preset(
        "scaffold+sam",
        "SCAFFOLD with perturbed gradients.",
        "Dai et al., IEEE TNNLS 2023, Algorithm 1, doi:10.1109/TNNLS.2023.3304453: the perturbation follows the "
        "gradient without the correction. SCAFFOLD: https://arxiv.org/abs/1910.06378",
    ),
    "pooled": Preset(
        "fedavg",
        "train on the images of all sites in one place; a baseline without federated learning.",
        "The upper baseline of McMahan et al. 2017 and of most papers since. A batch holds images of one site, and "
        "the sites' batches come in random order. https://arxiv.org/abs/1602.05629",
    ),
}
"""Methods without code of their own."""

NAMES: Final[tuple[str, ...]] = (
    *("fedavg", "harmofl", "harmofl-released", "harmofl-profile", "fedprox", "fednova", "fedavgm", "fedadam"),
    *("fedyogi", "scaffold", "feddyn", "moon", "fedbn", "silobn", "fedsam", "fedasam", "mofedsam", "fedgamma"),
    *("fedspeed", "fedsmoo", "fedlesam", "fedfa", "feddg", "ditto", "fedrep", "local", "pooled"),
)
"""The names of all methods, in the order of lists."""

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


@cache
def class_description(name: str) -> Description:
    """Describe a method or a part with code of its own, a key of `HOMES` or `PARTS`."""
    slot, module, cls = PARTS[name] if name in PARTS else ("", *HOMES[name])
    fields, calls = _fields(module, cls)
    doc = ast.get_docstring(_class(module, cls)) if slot else ast.get_docstring(_tree(module)).partition(": ")[2]  # type: ignore[union-attr]
    parts, of_parts = {}, {}
    for place, call in calls.items():
        part, defaults = _part(call)
        parts[place] = part
        of_parts[place] = class_description(part).having(defaults).own
    return Description((doc or "").splitlines()[0], fields, parts, of_parts)


def _part(call: ast.Call) -> tuple[str, dict[str, Any]]:
    """Return the name and the hyperparameters of a default such as `SAM(rho=0.1)`."""
    names = {cls: name for name, (_, _, cls) in PARTS.items()}
    return names[ast.unparse(call.func)], {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(files(__package__).joinpath(f"{module}.py").read_text(encoding="utf-8"))


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
    """Return the module of a base class, or "" for one without hyperparameters."""
    homes = {cls: home for home, cls in HOMES.values()}
    return homes.get(base) or (module if base == "Average" else "")
