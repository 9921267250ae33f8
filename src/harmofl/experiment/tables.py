"""The tables of an experiment: every setting with its default, its range and what it means.

[run]         name, seed, device, threads, workers, checkpoint_every, diagnostics
[data]        folder, mode, size, channels, slices, levels, spacing, patch_size, patches_per_volume, intensity, window,
              sites, unseen, split, split_seed, images_per_site, cache, source
[method]      name, and the method's hyperparameters
[network]     name, norm, values, options
[training]    rounds, participation, epochs, batch_size, optimizer, lr, momentum, weight_decay, loss, precision,
              compile, graph, augment, last_image, updates, downlink
[evaluation]  metric, batch_size, test_batch_size, batches, validation, every, test_every_round
[privacy]     clip, noise, noise_of, amplitude_clip, sites, masks, min_images, delta
"""

import math
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from harmofl.data.volume_settings import VolumeSettings
from harmofl.methods import make_method
from harmofl.methods.catalogue import Arrangement, arrangement
from harmofl.methods.composition import canonical
from harmofl.types import Augmentation, Intensity, Levels, Mode, Normalization, Precision, WeightFormat

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


def _sides(value: object) -> object:
    """Return the sides of a size as text, "256x256" or "256", or as one number; other values as they are."""
    height, _, width = (str(value) if type(value) is int else value if isinstance(value, str) else "").partition("x")
    sides = (height, width or height)
    return tuple(map(int, sides)) if all(side.isascii() and side.isdigit() for side in sides) else value


def _thrice(value: object) -> object:
    """Return one number as three equal ones; other values as they are."""
    return (value,) * 3 if isinstance(value, int | float) and not isinstance(value, bool) else value


def _several(value: object) -> object:
    """Return one name as a list of it; other values as they are."""
    return [value] if isinstance(value, str) else value


Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Voxels = Annotated[int, Field(ge=1)]
Folder = Annotated[Path, BeforeValidator(_named)]
Size = Annotated[tuple[int, int], BeforeValidator(_sides)]
Spacing = Annotated[tuple[Length, Length, Length], BeforeValidator(_thrice)]
PatchSize = Annotated[tuple[Voxels, Voxels, Voxels], BeforeValidator(_thrice)]
Names = Annotated[tuple[str, ...], BeforeValidator(_several)]
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
    mode: Mode = Field("slices", description="2.5d: slices with neighbours; volumes: a 3-D network on patches")
    size: Size | None = Field(None, description="height and width; also as text, 256x256, or one number for both")
    channels: int | None = Field(None, ge=1)
    slices: Literal["all", "foreground", "inner"] | None = Field(
        None, description="of volumes; inner: with a mask, without the first and the last; None: federation.toml's"
    )
    levels: Levels = Field("rounded", description="conversion of volumes to 8 bit; truncated: as in the released code")
    spacing: Spacing | None = Field(
        None, description="of volumes, in mm along D, H, W; None: the median over the training volumes"
    )
    patch_size: PatchSize | None = Field(None, description="of volumes, in voxels along D, H, W; None: 96 each")
    patches_per_volume: int | None = Field(None, ge=1, description="patches of a training volume in an epoch; None: 4")
    intensity: Intensity | None = Field(None, description="of volumes; zscore (None) for MRI, window for CT")
    window: tuple[float, float] | None = Field(
        None, validate_default=True, description="values that become 0 and 1, such as [-160, 240] HU"
    )
    sites: Names | None = Field(None, min_length=1, description="sites that take part; None: all")
    unseen: Names = Field((), description="sites that do not train, where the chosen model is tested")
    split: Literal["given", "images"] = Field("given", description="images: random, 64/16/20 % of single images")
    split_seed: int | None = Field(None, ge=0, lt=2**63, description="for data without a split; None: run.seed")
    images_per_site: Annotated[int | str, BeforeValidator(_images_per_site)] = Field(
        "all", description="the first training images of each site; smallest: as many as the smallest site has"
    )
    cache: Folder | None = Field(None, description="folder of decoded images, mapped instead of in memory")
    source: str = Field("", description="source of the data, in words")

    @field_validator("size", "channels", "slices", "levels", "split")
    @classmethod
    def _of_slices(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse settings of slices for whole volumes, and 2.5-D slices without neighbours."""
        mode = info.data.get("mode")
        if mode == "volumes" and value != cls.model_fields[info.field_name or ""].default:
            raise ValueError('has no effect with data.mode = "volumes"; leave it out')
        if mode == "2.5d" and info.field_name == "channels" and value is not None and (value < 3 or value % 2 == 0):
            raise ValueError('must be 3, 5, ... with data.mode = "2.5d"')
        return value

    @field_validator("spacing", "patch_size", "patches_per_volume", "intensity", "window")
    @classmethod
    def _of_volumes(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse settings of whole volumes for slices."""
        if value is not None and info.data.get("mode", "volumes") != "volumes":
            raise ValueError('needs data.mode = "volumes"')
        return value

    @field_validator("window")
    @classmethod
    def _has_range(cls, value: tuple[float, float] | None, info: ValidationInfo) -> tuple[float, float] | None:
        """Refuse a window without its intensity, and the intensity without its window."""
        if (value is not None) != (info.data.get("intensity") == "window"):
            raise ValueError('must be given with data.intensity = "window", and only then, such as [-160, 240]')
        if value is not None and not -math.inf < value[0] < value[1] < math.inf:
            raise ValueError("must be two finite numbers, the lower one first")
        return value

    @property
    def volumes(self) -> VolumeSettings | None:
        """The settings of whole volumes, with defaults filled in; None for slices and photographs."""
        if self.mode != "volumes":
            return None
        names = (field.name for field in fields(VolumeSettings))
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return VolumeSettings(**given)

    def filled(self) -> "DataTable":
        """Return the table with the defaults of whole volumes filled in."""
        return self.model_copy(update=asdict(self.volumes)) if self.volumes else self


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
    graph: Literal["off", "auto", "on"] = Field("off", description="record steps as CUDA graphs; auto: where possible")
    augment: Augmentation = Field(
        "none", description="flips: random flips, also of volumes, and quarter turns of square images"
    )
    last_image: Literal["joined", "alone"] = Field(
        "joined", description="the batch of a single image that is left over: the one before it, or its own"
    )
    updates: WeightFormat = Field("float32", description="changes from the sites: half the bytes, or int8, a quarter")
    downlink: WeightFormat = Field("float32", description="changes to the sites; those without the last round get all")


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
