"""Settings of the volumes that a three-dimensional network trains on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harmofl.types import Intensity

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class VolumeSettings:
    """Preprocessing of volumes, and the patches drawn from them.

    All triples are along the axes (D, H, W) of the network: D upwards, across the axial slices, H to the right, W to
    the front.

    Args:
        patch_size: voxels of a training patch, and of a window of inference.
        patches_per_volume: patches drawn from a training volume in an epoch, at least 1.
        spacing: millimetres between the voxels after resampling; None is the median over the training volumes.
        intensity: "zscore" scales by mean and deviation of the body's voxels, "window" by `window`.
        window: (low, high) that become 0 and 1, such as Hounsfield units of a CT.
    """

    patch_size: tuple[int, int, int] = (96, 96, 96)
    patches_per_volume: int = 4
    spacing: Spacing | None = None
    intensity: Intensity = "zscore"
    window: tuple[float, float] | None = None

    def preprocessing(self) -> tuple[Any, ...]:
        """Return what determines the preprocessed voxels."""
        return self.spacing, self.intensity, self.window

    def on_card(self) -> dict[str, Any]:
        """Return the entries of a model card that inference needs, without those of training alone."""
        kept = asdict(self)
        del kept["patches_per_volume"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}

    @classmethod
    def from_card(cls, entries: Mapping[str, Any]) -> "VolumeSettings":
        """Undo `on_card`."""
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in entries.items()}
        return cls(**given)
