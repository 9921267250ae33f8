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

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from harmofl.experiment.data_table import DataTable
from harmofl.experiment.settings_table import SettingsTable
from harmofl.methods import make_method
from harmofl.methods.catalogue import Arrangement, arrangement
from harmofl.methods.composition import canonical
from harmofl.types import Augmentation, Normalization, Precision, WeightFormat

if TYPE_CHECKING:
    from harmofl.methods import FedAvg

Section = dict[str, Any]
DEFAULT = "harmofl"
"""The method of an experiment that names none."""


class RunTable(SettingsTable):
    """Settings of the run: device, processes, checkpoints."""

    name: str = Field("run", pattern=r"^[^/\\]+$")
    seed: int = Field(0, ge=0, lt=2**63)
    device: str = Field("cpu", pattern=r"^(cpu|auto|cuda(:\d+)?|mps)$")
    threads: int = Field(0, ge=0, le=1024, description="of each process; 0: OMP_NUM_THREADS, or a share of the cores")
    workers: int = Field(1, ge=0, le=1024, description="processes that train sites; 0: measure which number is fastest")
    checkpoint_every: int = Field(1, ge=1, description="rounds between checkpoints")
    diagnostics: bool = Field(False, description="measure drift, dissimilarity and sharpness in every round")


class NetworkTable(SettingsTable):
    """Settings of the network; `name` is densenet, unet or a dotted name of any torch or MONAI network."""

    name: str | None = None
    norm: Normalization = "instance"
    values: Literal["0..1", "-2..2", "0..255"] = Field(
        "0..1", description="range of an 8-bit image at the network's input; -2..2: about standardized"
    )
    options: Section = Field(default_factory=dict)


class TrainingTable(SettingsTable):
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


class EvaluationTable(SettingsTable):
    """Settings of the scoring of models."""

    metric: str | None = Field(None, description="metric that chooses the round and compares methods")
    batch_size: int = Field(32, ge=1)
    test_batch_size: int | None = Field(None, ge=1, description="batch size of the final test; None: batch_size")
    batches: Literal["mixed", "in-order"] = Field("mixed", description="mixed: one random order in all rounds")
    validation: Literal["images", "batches"] = Field("images", description="batches: mean of the batches' scores")
    every: int = Field(1, ge=1, description="rounds between validations; the last is always validated")
    test_every_round: bool = False


class PrivacyTable(SettingsTable):
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


class Experiment(SettingsTable):
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
