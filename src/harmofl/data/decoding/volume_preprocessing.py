"""Preprocessing of a volume for a three-dimensional network: orientation, crop to the body, spacing, intensities.

Axes are turned to the canonical ones by `volumes.read_voxels`; the rest is done by MONAI's transforms, whose inverses
bring a prediction back to the voxels of the file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harmofl.data.decoding.images import reading
from harmofl.data.decoding.volumes import contrast, read_geometry, read_voxels
from harmofl.data.volume_settings import Spacing, VolumeSettings
from harmofl.utils.lazy_imports import optional

STORED = np.float16
"""Type of preprocessed voxels: in [0, 1] its rounding is below 0.2 % of a standard deviation, at half the bytes."""
DEVIATIONS = 4
"""Standard deviations of the body's voxels from their mean to the ends of the range, under "zscore"."""
_AIR = 0.1
"""Share of the way from black to white (`volumes.contrast`) up to which a voxel is not body, under "zscore"."""


@dataclass(frozen=True)
class PreparedVolume:
    """A preprocessed volume.

    Args:
        image: (D, H, W) `STORED`, in [0, 1].
        labels: (D, H, W) uint8, or None.
        restore: turns logits (K, D, H, W) into logits on the file's voxels in canonical orientation, (K, S, H, W).
    """

    image: np.ndarray
    labels: np.ndarray | None
    restore: Callable[[Any], Any]


def read_prepared_volume(path: Path, settings: VolumeSettings, labels: np.ndarray | None = None) -> PreparedVolume:
    """Read and preprocess a NIfTI volume, and its (S, H, W) labels in canonical orientation.

    Raises:
        DataError: as `volumes.read_volume`.
        ConfigError: if MONAI is not installed.
    """
    with reading(path):
        voxels = read_voxels(path)
    return prepare_volume(voxels, network_spacing(path), settings, labels)


def network_spacing(path: Path) -> Spacing:
    """Read the millimetres between a file's voxels along (D, H, W); raise DataError if the header is damaged."""
    with reading(path):
        height, width, slices = read_geometry(path).spacing
    return slices, height, width


def prepare_volume(
    voxels: np.ndarray, spacing: Spacing, settings: VolumeSettings, labels: np.ndarray | None = None
) -> PreparedVolume:
    """Preprocess voxels (S, H, W) float32 in canonical orientation; `settings.spacing` must be given.

    The volume is cropped to the box of the body and of all labels, resampled (linearly; labels by the nearest voxel),
    and scaled so that `range_of` becomes [0, 1], beyond which values are clipped.
    """
    transforms = _monai("transforms")
    body = body_of(voxels, settings)
    start, end = transforms.generate_spatial_bounding_box((body if labels is None else body | (labels > 0))[None])
    crop = transforms.SpatialCrop(roi_start=start, roi_end=end)
    resample = _resampling(settings, "bilinear")
    image = resample(crop(_with_spacing(voxels, spacing)))
    low, high = range_of(voxels[body], settings)
    scaled = transforms.ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(image)
    if labels is not None:
        labels = _resampling(settings, "nearest")(crop(_with_spacing(labels, spacing)))[0].numpy().astype(np.uint8)

    def restore(logits: Any) -> Any:
        traced = _monai("data").MetaTensor(logits.float(), meta=image.meta, applied_operations=image.applied_operations)
        return crop.inverse(resample.inverse(traced)).as_tensor()

    return PreparedVolume(scaled[0].numpy().astype(STORED), labels, restore)


def body_of(voxels: np.ndarray, settings: VolumeSettings) -> np.ndarray:
    """Return a mask of the body: voxels above the window's low end, or of more than a tenth of the contrast.

    If that is none, as in a constant volume, it is all voxels.
    """
    if settings.window is not None:
        body = voxels > settings.window[0]
    else:
        black, white = contrast(voxels)
        body = voxels > black + _AIR * (white - black)
    return body if body.any() else np.ones_like(body)


def range_of(body: np.ndarray, settings: VolumeSettings) -> tuple[float, float]:
    """Return the values that become 0 and 1, from the voxels of the body."""
    if settings.window is not None:
        return settings.window
    mean, deviation = float(body.mean(dtype=np.float64)), float(body.std(dtype=np.float64))
    reach = DEVIATIONS * deviation or 1.0
    return mean - reach, mean + reach


def _resampling(settings: VolumeSettings, mode: str) -> Any:
    return _monai("transforms").Spacing(pixdim=settings.spacing, mode=mode, padding_mode="border", dtype=np.float32)


def _with_spacing(voxels: np.ndarray, spacing: Spacing) -> Any:
    """Return voxels (D, H, W) as MONAI's tensor (1, D, H, W), whose affine has the spacing."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(voxels))[None]
    return _monai("data").MetaTensor(tensor, affine=torch.diag(torch.tensor([*spacing, 1.0])))


def _monai(package: str) -> Any:
    """Return a package of MONAI; raise ConfigError if it is not installed."""
    return optional(f"monai.{package}", 'data.mode = "volumes"', "monai")
