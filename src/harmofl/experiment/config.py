"""The configuration of an experiment: a TOML file, options of the command line, and the defaults of the task."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from harmofl.data.layout.reader import check_folder
from harmofl.errors import ConfigError, DataError, RunError
from harmofl.evaluation.metrics import MAIN_METRIC
from harmofl.experiment.config_messages import EXAMPLES, in_words
from harmofl.experiment.data_table import IN_MEMORY, DataTable
from harmofl.experiment.tables import DEFAULT, TABLES, Experiment, Section
from harmofl.methods import hyperparameters_of
from harmofl.methods.composition import canonical, carried, check_names, parse_composition, with_values_of_name
from harmofl.types import Task
from harmofl.utils.hardware import default_threads
from harmofl.utils.toml_values import parse_value

TASK_DEFAULTS: Mapping[Task, Mapping[str, Section]] = {
    "classification": {
        "network": {"name": "densenet"},
        "training": {"batch_size": 32, "optimizer": "sgd", "lr": 1e-3, "loss": "cross-entropy"},
        "evaluation": {"metric": MAIN_METRIC["classification"]},
    },
    "segmentation": {
        "network": {"name": "unet"},
        "training": {"batch_size": 16, "optimizer": "adam", "lr": 1e-4, "loss": "dice-ce"},
        "evaluation": {"metric": MAIN_METRIC["segmentation"]},
    },
}
"""The paper's settings of the histology and the prostate experiment (batch size: for smaller sites than Camelyon17)."""
VOLUME_DEFAULTS: Mapping[str, Section] = {"training": {"batch_size": 2, "lr": 1e-3}}
"""Settings that differ for volumes, whose patches take the memory of many images."""


def load_experiment(
    path: Path | str | None,
    changes: Mapping[str, Any],
    check: Callable[["Experiment"], object] = lambda experiment: None,
) -> Experiment:
    """Read an experiment from TOML (or start from the defaults) and apply changes by dotted key.

    Args:
        path: the TOML file, or None.
        changes: values by key, such as {"training.lr": 0.01}; a key without a dot is a hyperparameter of the method.
        check: a further check that may raise; runs before the method is made, which imports torch.

    Raises:
        ConfigError: for a file that is missing or no TOML, an unknown key, or a value out of range; it names the file
            or the change, as an option of the command line.
    """
    path = Path(path) if path else None
    tables = _read(path) if path else {}
    tables.pop("versions", None)
    tables.setdefault("data", {})
    experiment = _tracing(lambda some: _parsed(changed(tables, some)), path, changes)
    check(experiment)
    return _tracing(lambda some: _with_method(_parsed(changed(tables, some))), path, changes)


FLAGS = {
    "method.name": "--method",
    "data.folder": "--data",
    "data.size": "--size",
    "data.unseen": "--unseen",
    "training.rounds": "--rounds",
    "run.seed": "--seed",
}
"""Options of the command line, by the key that they set."""


def _tracing(
    build: Callable[[Mapping[str, Any]], Experiment], path: Path | None, changes: Mapping[str, Any]
) -> Experiment:
    """Build the experiment with all changes; an error names the file, or the first change that brings it about."""
    try:
        return build(changes)
    except ConfigError as error:
        message = str(error)
    where = str(path)
    for count in range(len(changes) + 1):
        try:
            build(dict(islice(changes.items(), count)))
        except ConfigError as error:
            if str(error) == message:
                break
    if count:
        key, value = list(changes.items())[count - 1]
        where = f"{FLAGS[key]} {value}" if key in FLAGS else f"--set {key}={value}"
    raise ConfigError(f"{where}: {message}") from None


def check_data(data: DataTable) -> None:
    """Raise ConfigError unless a folder is named, and DataError unless it exists."""
    check_folder_is_named(data)
    if data.source and not data.folder.exists():
        raise DataError(f"{data.folder}: no such folder; download {data.source}, or set data.folder")
    check_folder(data.folder)


def check_folder_is_named(data: DataTable) -> None:
    """Raise ConfigError for an experiment on sites in memory."""
    if data.folder == IN_MEMORY:
        raise ConfigError("data.folder is missing; give it in the configuration, with --data, or --set data.folder=...")


def check_images_remain(data: DataTable, run: Path) -> None:
    """Raise RunError if the images of a run were in memory, so that they are not on disk to open it again."""
    if data.folder == IN_MEMORY:
        raise RunError(
            f"{run}: was trained on datasets in memory, which are not on disk; resume it in Python with "
            f"harmofl.resume({str(run)!r}, sites=...), where harmofl.federation_of makes sites from the datasets"
        )


def changed(tables: Mapping[str, Any], changes: Mapping[str, Any]) -> Section:
    """Return the tables with changes by dotted key, as in `load_experiment`.

    Raises:
        ConfigError: for the key of a whole table.
    """
    result = deepcopy(dict(tables))
    method = result.get("method")
    if isinstance(method, dict) and isinstance(method.get("name"), str):
        result["method"] = with_values_of_name(method)
    _check_given_once(changes)
    for key, value in changes.items():
        if key in TABLES:
            raise ConfigError(f"{key} is a table; set one of its values, such as {EXAMPLES[key]}")
        if key in ("method.name", "name") and isinstance(value, str):
            result["method"] = _renamed(result.get("method", {}), value)
            continue
        _put(result, key if "." in key else f"method.{key}", value)
    return result


def _check_given_once(changes: Mapping[str, Any]) -> None:
    """Raise ConfigError if changes have a value in the name of a method, and another by its own key."""
    own = {key.removeprefix("method."): value for key, value in changes.items() if key.count(".") < 2}
    if isinstance(own.get("name"), str):
        with_values_of_name(own)


def _renamed(table: Mapping[str, Any], method: str) -> Section:
    """Return the table of another method, with what it keeps of this one; values in its name win."""
    name, values = parse_composition(method)
    return {**carried(canonical({"name": DEFAULT, **table}), name), **values, "name": name}


def validated(tables: Mapping[str, Any], where: str) -> Experiment:
    """Return the experiment in these tables, with every value checked; errors begin with `where`."""
    try:
        return _with_method(_parsed(tables))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _parsed(tables: Mapping[str, Any]) -> Experiment:
    """Return the experiment with every value checked, without making the method."""
    try:
        experiment = Experiment.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(in_words(error, Experiment)) from None
    check_names(experiment.method_name, experiment.hyperparameters)
    return experiment


def _with_method(experiment: Experiment) -> Experiment:
    """Return the experiment, whose method can be made."""
    from harmofl.methods import RadialProfile  # imports torch, as making the method does

    normalize, axes = experiment.method.normalize, 3 if experiment.data.volumes else 2
    spacing = normalize.spacing if isinstance(normalize, RadialProfile) else ()
    if spacing and len(spacing) != axes:
        what = "volumes (D, H, W)" if experiment.data.volumes else "images (H, W)"
        raise ConfigError(f"method.spacing must have {axes} numbers for {what}, got {list(spacing)}; change it")
    return experiment


def resolved(experiment: Experiment, task: Task) -> Experiment:
    """Return the experiment with the task's defaults, the number of threads and the method's defaults filled in.

    A radial profile of volumes takes the spacing of their voxels, if it is uneven and the method was given none.
    """
    tables = experiment.model_dump()
    tables["data"] = experiment.data.filled().model_dump()
    for section, defaults in TASK_DEFAULTS[task].items():
        own = VOLUME_DEFAULTS.get(section, {}) if experiment.data.volumes else {}
        for key, value in {**defaults, **own}.items():
            if tables[section][key] is None:
                tables[section][key] = value
    tables["run"]["threads"] = tables["run"]["threads"] or default_threads(tables["run"]["workers"])[0]
    for key in ("folder", "cache"):
        if (place := tables["data"][key]) not in (None, IN_MEMORY):
            tables["data"][key] = Path(place).resolve()
    method = hyperparameters_of(experiment.method)
    if len(set(tables["data"]["spacing"] or ())) > 1 and "spacing" in method:  # a radial profile in cycles per mm
        method["spacing"] = experiment.hyperparameters.get("spacing", tables["data"]["spacing"])
    tables["method"] = {"name": experiment.method_name, **method}
    return Experiment.model_validate(tables)


def to_toml(experiment: Experiment, versions: Mapping[str, str]) -> str:
    """Return the experiment as TOML, with a table of versions, harmofl's last, that `load_experiment` ignores."""
    tables = experiment.model_dump(mode="json", exclude_none=True)
    last = {name: versions[name] for name in sorted(versions, key=lambda name: name == "harmofl")}
    return tomli_w.dumps({**tables, "versions": last} if versions else tables)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` options of the command line; values are TOML, or else text.

    Raises:
        ConfigError: for an option without "=".
    """
    parsed = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set takes key=value, such as training.lr=0.01, got {setting!r}")
        parsed[key.strip()] = parse_value(text.strip())
    return parsed


def _read(path: Path) -> Section:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration; see configs/ for examples") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: must be a TOML file, but is a folder; give images with --data {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: must be a TOML file, but {error}") from None


def _put(table: Section, dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{dotted}: {parent} must be a table to set a value in it, got {table!r}")
    table[last] = deepcopy(value)
