"""Errors of a configuration in its own words, instead of those of its validator."""

from typing import Any

from pydantic import ValidationError

from harmofl.errors import ConfigError

EXAMPLES = {
    "data": "data.folder=hospitals",
    "run": "run.seed=1",
    "method": "method.name=fedavg",
    "network": "network.name=unet",
    "training": "training.lr=0.01",
    "evaluation": "evaluation.batch_size=8",
    "privacy": "privacy.min_images=20",
}
"""A value of each table, as an option of the command line."""
_SITES = 'a list of names of sites, such as ["site-1"]'
_WORDS = {
    "run.name": "a name without slashes",
    "run.device": "cpu, auto, mps, cuda or cuda:NUMBER",
    "data.folder": "the path of a folder, as text",
    "data.cache": "the path of a folder, as text",
    "data.size": "two whole numbers, height and width, such as [256, 256]",
    "data.spacing": "one or three positive numbers, mm along D, H and W, such as [3, 1, 1]",
    "data.patch_size": "one or three whole numbers of at least 1, voxels along D, H and W, such as [32, 96, 96]",
    "data.window": "two numbers, such as [-160, 240]",
    "data.sites": _SITES,
    "data.unseen": _SITES,
    "network.options": "a table, such as {features = 8}",
}
"""What a setting must be, where the words of its validator would not say it."""
_TYPES = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
}
"""What a setting must be, by the validator's name of the error."""


def in_words(error: ValidationError, model: Any) -> str:
    """Return the first error as one line in the words of the configuration, which `model` describes."""
    first = error.errors()[0]
    if isinstance(reason := first.get("ctx", {}).get("error"), ConfigError):
        return str(reason)
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        for part in first["loc"][:-1]:
            model = model.model_fields[part].annotation
        known = [field.alias or name for name, field in model.model_fields.items()]
        return f"unknown key {key!r}; known keys are {', '.join(known)}"
    if first["type"] in ("dict_type", "model_type") and key in EXAMPLES:
        return f"{key} must be a table, got {first['input']!r}; set one of its values, such as {EXAMPLES[key]}"
    setting = ".".join(part for part in first["loc"] if isinstance(part, str))
    if first["type"] != "value_error" and (words := _WORDS.get(setting) or _TYPES.get(first["type"])):
        return f"{setting} must be {words}, got {first['input']!r}"
    if first["type"] == "missing":
        return f"{key} is missing; give it in the configuration or with --set {key}=..."
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}, got {first['input']!r}"
