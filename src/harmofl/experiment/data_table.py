"""The table [data] of an experiment: the images, their decoding, and the preprocessing of whole volumes."""

import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from harmofl.data.volume_settings import VolumeSettings
from harmofl.experiment.settings_table import SettingsTable
from harmofl.types import Intensity, Levels, Mode


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


class DataTable(SettingsTable):
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
