"""Pictures of volumes: an axial, a coronal and a sagittal plane on one sheet, in true proportions."""

from collections.abc import Iterable, Sequence

import numpy as np

from harmofl.data.volume_settings import Spacing
from harmofl.data.volume_split import VolumeSplit

LAYOUT = "axial above, coronal below, sagittal at the right; the front and the head are up, the patient's right is left"
"""Places and directions of the planes on a sheet, in words."""
_MOST = 512
"""Largest number of pixels along a side of a sheet."""
Place = tuple[int, int, int]


def place_of_planes(labels: np.ndarray) -> Place:
    """Return the index along each axis (D, H, W) of the plane with the most labelled voxels, or of the middle plane."""
    there = labels > 0
    if not there.any():
        depth, height, width = (n // 2 for n in labels.shape)
        return depth, height, width
    depth, height, width = (int(there.sum(axis=axes).argmax()) for axes in ((1, 2), (0, 2), (0, 1)))
    return depth, height, width


def three_planes(volume: np.ndarray, place: Place, spacing: Spacing) -> np.ndarray:
    """Return the three planes of a volume (D, H, W) through a place on one sheet of square pixels, see `LAYOUT`.

    Axes are those of `VolumeSettings`. A pixel is as wide as the shortest side of a voxel, or wider if a side of the
    sheet would have more than 512; voxels are repeated or left out, so that label maps stay label maps.
    """
    up, right, front = (
        _steps(n, mm, _pixel(volume.shape, spacing)) for n, mm in zip(volume.shape, spacing, strict=True)
    )
    depth, height, width = place
    axial = volume[depth][np.ix_(right, front)].T
    coronal = volume[:, :, width][np.ix_(up, right)]
    sagittal = volume[:, height][np.ix_(up, front)]
    upper = np.hstack([axial[::-1, ::-1], np.zeros((len(front), len(front)), volume.dtype)])
    return np.vstack([upper, np.hstack([coronal[::-1, ::-1], sagittal[::-1, ::-1]])])


def sheets_of(volumes: Iterable[np.ndarray], data: VolumeSplit) -> np.ndarray:
    """Return the sheet of each volume of a split, or of its label maps or predictions, padded to one size (N, H, W).

    The planes go through the largest true structure; of memory-mapped images only these planes are read.
    """
    return _stacked(
        [three_planes(v, place_of_planes(t), data.spacing) for v, t in zip(volumes, data.targets, strict=True)]
    )


def _stacked(sheets: Sequence[np.ndarray]) -> np.ndarray:
    height, width = np.max([sheet.shape for sheet in sheets], axis=0)
    return np.stack([np.pad(s, ((0, height - s.shape[0]), (0, width - s.shape[1]))) for s in sheets])


def _pixel(shape: tuple[int, ...], spacing: Spacing) -> float:
    """Return the millimetres of a pixel."""
    depth, height, width = (n * mm for n, mm in zip(shape, spacing, strict=True))
    return max(min(spacing), (width + depth) / _MOST, (height + width) / _MOST)


def _steps(count: int, spacing: float, pixel: float) -> np.ndarray:
    """Return the index of the voxel under the middle of each pixel along an axis."""
    pixels = max(1, round(count * spacing / pixel))
    return ((2 * np.arange(pixels) + 1) * count) // (2 * pixels)
