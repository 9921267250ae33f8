"""Hyperparameters by their names in versions up to 0.1, in which HarmoFL's halves were fields of every method."""

from collections.abc import Mapping
from typing import Any

from harmofl.errors import ConfigError
from harmofl.methods.catalogue import NAMES, PARTS, Description, class_description

RENAMED = {
    "alpha": "rho",
    "climb": "ascent",
    "climb_every": "ascent_every",
    "climb_part": "params_regex",
    "rings": "radial_bins",
    "reference": "per",
    "joint": "shared_gain",
}
"""New name of each hyperparameter that was renamed in all methods; `eta` of FedAdam and FedYogi became `server_lr`."""
IDLE: Mapping[str, Any] = {
    **{"rho": 0, "ascent": "fresh", "ascent_every": 1, "params_regex": ""},
    **{"radial_bins": 0, "band": "off", "per": "image", "shared_gain": False, "strength": 1.0, "decay": 0.1},
    **{"trim": 0.2},
}
"""Values without effect in a method that has not the part, as run folders have them."""


def translated(known: Description, name: str, given: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the parts that older names stand for, by slot, and the hyperparameters by their names of today.

    Older names in a composition, which no older version had, are renamed and stand for no parts.

    Args:
        known: the method.
        name: its name.
        given: hyperparameters, with older names or without.

    Raises:
        ConfigError: if two names of one hyperparameter are given, or a band beside radial bins.
    """
    old = {key for key in given if _is_old(known, key, given[key])}
    values = dict[str, Any]()
    for key, value in given.items():
        new = _new_name(known, key)
        if new in values or (new != key and new in given):
            raise ConfigError(f"{name}: {key} is the former name of {new}, and both are given; set only {new}")
        values[new] = value
    if not old or name not in NAMES:
        return {}, values
    parts = {**_average(values), **_normalizer(known, values)}
    if values.get("rho") and "step" in known.parts and "rho" not in known.hyperparameters:
        parts["step"] = "sam"
    if "normalize" in parts:  # a normalizer in the place of another took over its values
        former = known.of_parts["normalize"]
        values = {key: former[key].default for key in ("decay", "strength") if key in former} | values
    kept = _keys_after(known, parts)
    off = known.of_parts.get("normalize", {}) if parts.get("normalize") == "identity" else {}
    return parts, {key: value for key, value in values.items() if key in kept or not (key in off or _idle(key, value))}


def _is_old(known: Description, key: str, value: object) -> bool:
    return (key, value) == ("band", "off") or (key not in known.hyperparameters and key in (*RENAMED, "average"))


def _idle(key: str, value: object) -> bool:
    return key in IDLE and value == IDLE[key]


def _new_name(known: Description, key: str) -> str:
    if key in known.hyperparameters:
        return key
    if key == "eta" and "server_lr" in known.own and "tau" in known.own:
        return "server_lr"
    return RENAMED.get(key, key)


def _average(values: dict[str, Any]) -> dict[str, str]:
    """Take `average = "median"` out of the values; return the part."""
    if "average" not in values:
        return {}
    asked = values.pop("average")
    averages = [part for part, (slot, _, _) in PARTS.items() if slot == "average"]
    if asked not in averages:
        raise ConfigError(f"average must be one of {', '.join(averages)}, got {asked!r}")
    return {"average": asked}


def _normalizer(known: Description, values: dict[str, Any]) -> dict[str, str]:
    """Take switches of the normalizer out of the values; return the part that they stand for."""
    band, bins = values.get("band"), values.get("radial_bins")
    if band not in (None, "off") and bins:
        raise ConfigError(f"band and radial_bins exclude each other, got {band} and {bins}; leave one out")
    for key in ("band", "radial_bins"):
        if values.get(key) == IDLE[key] and not isinstance(values[key], bool):
            del values[key]
    has = known.parts["normalize"]
    wanted = "amplitude" if "band" in values else "profile" if "radial_bins" in values else ""
    if wanted:
        return {} if wanted == has else {"normalize": wanted}
    off = (has == "amplitude" and band == "off") or (has == "profile" and bins == 0)
    return {"normalize": "identity"} if off else {}


def _keys_after(known: Description, parts: Mapping[str, str]) -> set[str]:
    """Return the hyperparameters of the method with these parts."""
    slots = {**known.parts, **parts}
    of_parts = [class_description(part).own if slot in parts else known.of_parts[slot] for slot, part in slots.items()]
    return set(known.own).union(*of_parts)
