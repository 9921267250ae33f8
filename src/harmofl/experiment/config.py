"""The configuration of an experiment: a TOML file, options of the command line, and the defaults of the task.

[run]         name, seed, device, threads, workers, checkpoint_every, diagnostics
[data]        folder, size, channels, slices, levels, sites, unseen, split, split_seed, images_per_site, cache, source
[method]      name, and the method's hyperparameters
[network]     name, norm, values, options
[training]    rounds, participation, epochs, batch_size, optimizer, lr, momentum, weight_decay, loss, precision,
              compile, augment, last_image, updates
[evaluation]  metric, batch_size, test_batch_size, batches, validation, every, test_every_round
[privacy]     clip, noise, noise_of, amplitude_clip, sites, masks, min_images, delta
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from harmofl.data.layout.reader import check_folder
from harmofl.errors import ConfigError, DataError, RunError
from harmofl.evaluation.metrics import MAIN_METRIC
from harmofl.experiment.config_messages import EXAMPLES, in_words
from harmofl.methods import hyperparameters_of, make_method
from harmofl.methods.catalogue import Arrangement, arrangement
from harmofl.methods.composition import canonical, carried, check_names, parse_composition, with_values_of_name
from harmofl.types import Augmentation, Levels, Normalization, Precision, Task
from harmofl.utils.hardware import default_threads
from harmofl.utils.toml_values import parse_value

if TYPE_CHECKING:
    from harmofl.methods import FedAvg

Section = dict[str, Any]
DEFAULT = "harmofl"
"""The method of an experiment that names none."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_flags_for_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number must be."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("must not be true or false")
        return value


def _named(folder: object) -> object:
    if folder == "":
        raise ValueError("must name a folder")
    return folder


def _images_per_site(value: object) -> object:
    if value not in ("all", "smallest") and not (type(value) is int and value >= 1):
        raise ValueError('must be a whole number of at least 1, "smallest" or "all"')
    return value


Folder = Annotated[Path, BeforeValidator(_named)]
IN_MEMORY = Path("(sites in memory)")
"""The folder of an experiment that names none."""


class RunTable(_Table):
    """Settings of the run: device, processes, checkpoints."""

    name: str = Field("run", pattern=r"^[^/\\]+$")
    seed: int = Field(0, ge=0, lt=2**63)
    device: str = Field("cpu", pattern=r"^(cpu|auto|cuda(:\d+)?|mps)$")
    threads: int = Field(0, ge=0, le=1024, description="of each process; 0: OMP_NUM_THREADS, or a share of the cores")
    workers: int = Field(1, ge=0, le=1024, description="processes that train sites; 0: measure which number is fastest")
    checkpoint_every: int = Field(1, ge=1, description="rounds between checkpoints")
    diagnostics: bool = Field(False, description="measure drift, dissimilarity and sharpness in every round")


class DataTable(_Table):
    """Settings of the images and their decoding."""

    folder: Folder = IN_MEMORY
    size: tuple[int, int] | None = None
    channels: int | None = Field(None, ge=1)
    slices: Literal["all", "foreground", "inner"] | None = Field(
        None, description="of volumes; inner: with a mask, without the first and the last; None: federation.toml's"
    )
    levels: Levels = Field("rounded", description="conversion of volumes to 8 bit; truncated: as in the released code")
    sites: tuple[str, ...] | None = Field(None, min_length=1, description="sites that take part; None: all")
    unseen: tuple[str, ...] = Field((), description="sites that do not train, where the chosen model is tested")
    split: Literal["given", "images"] = Field("given", description="images: random, 64/16/20 % of single images")
    split_seed: int | None = Field(None, ge=0, lt=2**63, description="for data without a split; None: run.seed")
    images_per_site: Annotated[int | str, BeforeValidator(_images_per_site)] = Field(
        "all", description="the first training images of each site; smallest: as many as the smallest site has"
    )
    cache: Folder | None = Field(None, description="folder of decoded images, mapped instead of in memory")
    source: str = Field("", description="source of the data, in words")


class NetworkTable(_Table):
    """Settings of the network; `name` is densenet, unet or a dotted name of any torch or MONAI network."""

    name: str | None = None
    norm: Normalization = "instance"
    values: Literal["0..1", "0..255"] = Field("0..1", description="range of an 8-bit image at the network's input")
    options: Section = Field(default_factory=dict)


class TrainingTable(_Table):
    """Settings of the training, the same at every site."""

    rounds: int = Field(100, ge=1)
    participation: float = Field(1.0, gt=0, le=1, description="share of the sites that is drawn for each round")
    epochs: int = Field(1, ge=1)
    batch_size: int | None = Field(None, ge=1)
    optimizer: Literal["sgd", "adam"] | None = None
    lr: float | None = Field(None, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0, allow_inf_nan=False)
    loss: Literal["cross-entropy", "dice", "dice-ce"] | None = None
    precision: Precision = Field("float32", description="bfloat16 computes about twice as fast")
    compile: bool = Field(False, description="torch.compile the network: a slow first step, then faster ones")
    augment: Augmentation = Field("none", description="flips: random flips, and quarter turns of square images")
    last_image: Literal["joined", "alone"] = Field(
        "joined", description="the batch of a single image that is left over: the one before it, or its own"
    )
    updates: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16: changes at half the bytes")


class EvaluationTable(_Table):
    """Settings of the scoring of models."""

    metric: str | None = Field(None, description="metric that chooses the round and compares methods")
    batch_size: int = Field(32, ge=1)
    test_batch_size: int | None = Field(None, ge=1, description="batch size of the final test; None: batch_size")
    batches: Literal["mixed", "in-order"] = Field("mixed", description="mixed: one random order in all rounds")
    validation: Literal["images", "batches"] = Field("images", description="batches: mean of the batches' scores")
    every: int = Field(1, ge=1, description="rounds between validations; the last is always validated")
    test_every_round: bool = False


class PrivacyTable(_Table):
    """Settings of the privacy of updates; by default all protection is off."""

    clip: float | None = Field(None, gt=0, allow_inf_nan=False, description="largest norm of an update")
    noise: float = Field(0.0, ge=0, allow_inf_nan=False, description="standard deviation of the noise, times clip")
    noise_of: Literal["update", "sum"] = Field("update", description="sum: a share of it at each site, for masks")
    amplitude_clip: float | None = Field(None, gt=0, allow_inf_nan=False, description="largest norm of an amplitude")
    sites: int = Field(3, ge=2, description="smallest number of sites in a sum, for masks and shares of noise")
    masks: bool = Field(False, description="secure aggregation in deployments: the server sees only sums")
    min_images: int = Field(0, ge=0, description="smallest number of images of an amplitude that is sent")
    delta: float = Field(1e-5, gt=0, lt=1, description="delta at which epsilon is stated")

    @field_validator("noise")
    @classmethod
    def _clipped(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("clip", 0) is None:
            raise ValueError("needs privacy.clip, the norm that scales the noise")
        return value


class Experiment(_Table):
    """The settings that determine a run's result."""

    data: DataTable
    run: RunTable = RunTable()  # type: ignore[call-arg]
    method_table: Section = Field(default_factory=dict, validate_default=True, alias="method")
    network: NetworkTable = NetworkTable()  # type: ignore[call-arg]
    training: TrainingTable = TrainingTable()  # type: ignore[call-arg]
    evaluation: EvaluationTable = EvaluationTable()  # type: ignore[call-arg]
    privacy: PrivacyTable = PrivacyTable()  # type: ignore[call-arg]

    @field_validator("method_table")
    @classmethod
    def _named(cls, value: Section) -> Section:
        return canonical({"name": DEFAULT, **value})

    @property
    def method_name(self) -> str:
        """The name of the method."""
        return str(self.method_table["name"])

    @property
    def hyperparameters(self) -> Section:
        """The hyperparameters of the method and its parts, as far as they are set."""
        return {key: value for key, value in self.method_table.items() if key != "name"}

    @property
    def arrangement(self) -> Arrangement:
        """The place of training: federated sites, one place with all images pooled, or each site alone."""
        return arrangement(self.method_name)

    @cached_property
    def method(self) -> "FedAvg":
        """The method with its hyperparameters; it is made when it is first used, as that imports torch."""
        return make_method(self.method_name, self.hyperparameters)

    @property
    def split_seed(self) -> int:
        """The seed of the split of data without a split."""
        return self.run.seed if self.data.split_seed is None else self.data.split_seed


TABLES = tuple(field.alias or name for name, field in Experiment.model_fields.items())
"""The names of the tables of an experiment."""
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
    _ = experiment.method
    return experiment


def resolved(experiment: Experiment, task: Task) -> Experiment:
    """Return the experiment with the task's defaults, the number of threads and the method's defaults filled in."""
    tables = experiment.model_dump()
    for section, defaults in TASK_DEFAULTS[task].items():
        for key, value in defaults.items():
            if tables[section][key] is None:
                tables[section][key] = value
    tables["run"]["threads"] = tables["run"]["threads"] or default_threads(tables["run"]["workers"])[0]
    for key in ("folder", "cache"):
        if (place := tables["data"][key]) not in (None, IN_MEMORY):
            tables["data"][key] = Path(place).resolve()
    tables["method"] = {"name": experiment.method_name, **hyperparameters_of(experiment.method)}
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
