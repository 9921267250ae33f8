"""NIfTI volumes as stacks of slices: canonical orientation, 8 bit, and 2.5-D neighbourhoods.

A volume is turned to the nearest canonical orientation (first axis to the right, second to the front, third
upwards); a slice is taken along the last axis, its rows running to the right, its columns to the front.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harmofl.errors import DataError
from harmofl.types import Levels

CLIP_QUANTILE = 0.99
_NAMED = {"c": "complex numbers", "V": "colours"}


@dataclass(frozen=True)
class Geometry:
    """A volume's place in space, from its header alone.

    Args:
        shape: (H, W, S) after turning it to the canonical axes.
        spacing: millimetres between voxels along these.
        axes: where the stored axes point, such as "LPS".
        affine: (4, 4) from voxels to millimetres, after turning.
        dtype: of the stored voxels.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    axes: str
    affine: np.ndarray
    dtype: str


def read_geometry(path: Path) -> Geometry:
    """Read a volume's header."""
    image = _load(path)
    turn = nibabel().orientations.io_orientation(image.affine)
    stored = np.argsort(turn[:, 0])  # the stored axis that becomes each canonical one
    spacing = np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    height, width, slices = (int(image.shape[axis]) for axis in stored)
    return Geometry(
        (height, width, slices),
        (float(spacing[stored[0]]), float(spacing[stored[1]]), float(spacing[stored[2]])),
        "".join(nibabel().aff2axcodes(image.affine)),
        np.asarray(nibabel().as_closest_canonical(image).affine),
        str(image.get_data_dtype()),
    )


def read_volume(path: Path, levels: Levels = "rounded") -> np.ndarray:
    """Read an image volume as (S, H, W) uint8: clipped at the 0.99 quantile, then from minimum to maximum.

    Levels are rounded, or truncated as in HarmoFL's released code.

    Raises:
        DataError: if it is not 3-D, has no voxels, or holds voxels that are not finite.
    """
    voxels = _voxels(path)
    low, high = float(voxels.min()), float(np.quantile(voxels, CLIP_QUANTILE))
    scale = 255 / (high - low) if high > low else 0.0
    exact = (np.clip(voxels, low, high) - low) * scale
    grey: np.ndarray = (exact if levels == "truncated" else np.rint(exact)).astype(np.uint8)
    return grey


def read_labels(path: Path) -> np.ndarray:
    """Read a label volume as (S, H, W) int64.

    Raises:
        DataError: as `read_volume`, or if a label is not a whole number.
    """
    voxels = _voxels(path)
    labels: np.ndarray = np.rint(voxels).astype(np.int64)
    if (odd := voxels[labels != voxels]).size:
        raise DataError(f"a mask must hold whole numbers, got {odd[0]:g}; convert it")
    return labels


def neighbourhoods(slices: np.ndarray, channels: int) -> np.ndarray:
    """Give every slice its neighbours as channels: (S, H, W) to (S, 2k+1, H, W), edges replicated.

    Raises:
        DataError: if `channels` is even.
    """
    if channels % 2 == 0:
        raise DataError(f"a volume needs an odd number of channels, got {channels}; choose 1, 3, 5, ...")
    steps = np.arange(channels) - channels // 2
    at = np.arange(len(slices))[:, None] + steps
    neighbours: np.ndarray = slices[np.clip(at, 0, len(slices) - 1)]
    return neighbours


def nibabel() -> Any:
    """Return the package, imported when the first volume is read: it is slow to import."""
    import nibabel

    return nibabel


def _load(path: Path) -> Any:
    nib = nibabel()
    image = nib.load(path)
    if len(image.shape) > 3 and set(image.shape[3:]) == {1}:
        image = image.slicer[:, :, :, *([0] * (len(image.shape) - 3))]
    if len(image.shape) != 3:
        raise DataError(f"a volume must have 3 axes, got shape {image.shape}; split it into 3-D volumes")
    if 0 in image.shape:
        raise DataError(f"a volume must have voxels, got shape {image.shape}; leave it out")
    if (voxel := image.get_data_dtype()).kind not in "iufb":
        raise DataError(f"a volume must have one real number a voxel, got {_NAMED.get(voxel.kind, voxel)}; convert it")
    if not np.isfinite(image.affine).all() or not np.linalg.det(image.affine[:3, :3]):
        raise DataError("the affine must turn voxels into space, got one that is zero or singular; mend the header")
    return image


def _voxels(path: Path) -> np.ndarray:
    """Return (S, H, W) finite float32 in canonical orientation."""
    voxels: np.ndarray = nibabel().as_closest_canonical(_load(path)).get_fdata(dtype=np.float32)
    if bad := int(np.count_nonzero(~np.isfinite(voxels))):
        raise DataError(f"voxels must be finite, got {bad} that are NaN or infinite; mend the volume")
    return np.moveaxis(voxels, 2, 0)
