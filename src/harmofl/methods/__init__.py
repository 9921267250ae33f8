"""The methods, by the name they have on the command line."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from harmofl.checks import is_number
from harmofl.errors import ConfigError
from harmofl.methods.ditto import Ditto
from harmofl.methods.fedadam import FedAdam
from harmofl.methods.fedasam import FedASAM
from harmofl.methods.fedavg import FedAvg
from harmofl.methods.fedavgm import FedAvgM
from harmofl.methods.fedbn import FedBN
from harmofl.methods.feddg import FedDG
from harmofl.methods.feddyn import FedDyn
from harmofl.methods.fedfa import FedFA
from harmofl.methods.fedgamma import FedGAMMA
from harmofl.methods.fedlesam import FedLESAM
from harmofl.methods.fednova import FedNova
from harmofl.methods.fedprox import FedProx
from harmofl.methods.fedrep import FedRep
from harmofl.methods.fedsam import FedSAM
from harmofl.methods.fedsmoo import FedSMOO
from harmofl.methods.fedspeed import FedSpeed
from harmofl.methods.fedyogi import FedYogi
from harmofl.methods.harmofl import HarmoFL
from harmofl.methods.harmofl_profile import HarmoFLProfile
from harmofl.methods.harmofl_released import HarmoFLReleased
from harmofl.methods.local_only import Local
from harmofl.methods.mofedsam import MoFedSAM
from harmofl.methods.moon import MOON
from harmofl.methods.pooled import Pooled
from harmofl.methods.scaffold import Scaffold
from harmofl.methods.silobn import SiloBN

__all__ = ["METHODS", "FedAvg", "FedSAM", "HarmoFL", "HarmoFLProfile", "HarmoFLReleased", "make_method"]

METHODS: Mapping[str, type[FedAvg]] = {
    "fedavg": FedAvg,
    "harmofl": HarmoFL,
    "harmofl-released": HarmoFLReleased,
    "harmofl-profile": HarmoFLProfile,
    "fedprox": FedProx,
    "fednova": FedNova,
    "fedavgm": FedAvgM,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "scaffold": Scaffold,
    "feddyn": FedDyn,
    "moon": MOON,
    "fedbn": FedBN,
    "silobn": SiloBN,
    "fedsam": FedSAM,
    "fedasam": FedASAM,
    "mofedsam": MoFedSAM,
    "fedgamma": FedGAMMA,
    "fedspeed": FedSpeed,
    "fedsmoo": FedSMOO,
    "fedlesam": FedLESAM,
    "fedfa": FedFA,
    "feddg": FedDG,
    "ditto": Ditto,
    "fedrep": FedRep,
    "local": Local,
    "pooled": Pooled,
}


def make_method(name: str, options: Mapping[str, Any]) -> FedAvg:
    """The method called `name` with these hyperparameters.

    Raises:
        ConfigError: if the name or a hyperparameter is unknown, or a value is out of range.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {name!r}; see `harmofl methods`")
    known = {field.name: field for field in fields(METHODS[name])}
    for key, value in options.items():
        if key not in known:
            raise ConfigError(f"{name} has no hyperparameter {key!r}; it has {', '.join(known)}")
        if known[key].type is float and not is_number(value):
            raise ConfigError(f"method.{key} must be a number, got {value!r}")
    return METHODS[name](**options)
