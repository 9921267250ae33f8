"""Reading of NIfTI volumes as stacks of slices: canonical orientation, 8 bit, and 2.5-D neighbourhoods.

A volume is turned to the nearest canonical orientation (first axis to the right, second to the front, third
upwards); slices are taken along the last axis: their first axis points to the right, their second to the front.
"""

import gzip
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harmofl.errors import DataError
from harmofl.types import Levels

CLIP_QUANTILE = 0.99
_LOW_QUANTILE = 0.01
_PADDING = 20  # minimum distance of a padding value from the other values, as a multiple of their range
_ROUNDING = 1e-3  # tolerance for labels that are stored with a scale factor
_APART = 0.1  # maximum distance of a mask from its image, in voxels
_HEADERS = {1: 348, 2: 540}
"""The size of a header in bytes, by the version of NIfTI."""
_GZIP = b"\x1f\x8b"
_NAMED = {"c": "complex numbers", "V": "colours"}


@dataclass(frozen=True)
class Geometry:
    """A volume's place in space, from its header alone.

    Args:
        shape: (H, W, S) after turning it to the canonical axes.
        spacing: millimetres between voxels along the canonical axes.
        axes: directions of the stored axes, such as "LPS".
        affine: (4, 4) from voxels to millimetres, after turning.
        dtype: type of the stored voxels.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    axes: str
    affine: np.ndarray
    dtype: str


def read_geometry(path: Path) -> Geometry:
    """Read a volume's header."""
    image = _load(path)
    stored = _stored_axes(image)
    spacing = np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    height, width, slices = (int(image.shape[axis]) for axis in stored)
    return Geometry(
        (height, width, slices),
        (float(spacing[stored[0]]), float(spacing[stored[1]]), float(spacing[stored[2]])),
        "".join(nibabel().aff2axcodes(image.affine)),
        np.asarray(nibabel().as_closest_canonical(image).affine),
        image.get_data_dtype().name,
    )


def read_volume(path: Path, levels: Levels = "rounded") -> np.ndarray:
    """Read an image volume as (S, H, W) uint8, scaled between the bounds of `contrast` and rounded.

    With `levels` "truncated", it is scaled between the minimum and the 0.99 quantile and truncated, as in HarmoFL's
    released code.

    Raises:
        DataError: if it is not 3-D, has no voxels, or holds voxels that are not finite.
    """
    voxels = read_voxels(path)
    low, high = contrast(voxels)
    if levels == "truncated":
        low = float(voxels.min())
    scale = 255 / (high - low) if high > low else 0.0
    exact = (np.clip(voxels, low, high) - low) * scale
    return np.asarray((exact if levels == "truncated" else np.rint(exact)).astype(np.uint8))


def contrast(values: np.ndarray) -> tuple[float, float]:
    """Return the values that become black and white: the minimum and the 0.99 quantile.

    Two kinds of minimum would leave few greys for the other values, and are clipped: fewer than 1 % of the values that
    make the range more than twice as wide (black is then the 0.01 quantile), and a padding value, more than 20 times as
    far from the next value as that is from white (black is then the next value).
    """
    low, high = float(values.min()), float(np.quantile(values, CLIP_QUANTILE))
    if np.count_nonzero(values < (low + high) / 2) < _LOW_QUANTILE * values.size:  # else the quantile is below this
        most = float(np.quantile(values, _LOW_QUANTILE))
        if most - low > high - most > 0:
            return most, high
    inside = float(values.min(initial=np.inf, where=values > low))
    return (inside, high) if inside - low > _PADDING * (high - inside) > 0 else (low, high)


def read_label_volume(path: Path) -> np.ndarray:
    """Read a label volume as (S, H, W) int64.

    Raises:
        DataError: as in `read_volume`, or if a label is not a whole number, up to the rounding of a scale factor.
    """
    voxels = read_voxels(path)
    labels: np.ndarray = np.rint(voxels).astype(np.int64)
    if (odd := voxels[np.abs(labels - voxels) > _ROUNDING]).size:
        raise DataError(f"a mask must hold whole numbers, got {odd[0]:.9g}; convert it")
    return labels


def demand_one_place(image: Path, mask: Path) -> None:
    """Check by the affines that a mask lies where its image does: corners differ by at most a tenth of a voxel.

    Raises:
        DataError: with the distance between them.
    """
    one, other = read_geometry(image), read_geometry(mask)
    corners = np.array([*itertools.product(*((0, length - 1) for length in one.shape))])
    apart = corners @ (other.affine - one.affine)[:3, :3].T + (other.affine - one.affine)[:3, 3]
    distance = float(np.linalg.norm(apart, axis=1).max())
    if distance > _APART * min(one.spacing):
        axes = f" and along {other.axes} instead of {one.axes}" if other.axes != one.axes else ""
        raise DataError(
            f"mask {mask.name} must lie where its image does, but its affine puts it up to {distance:.4g} mm "
            f"away{axes}; save it on the image's grid, with the image's affine"
        )


def neighbourhoods(slices: np.ndarray, channels: int) -> np.ndarray:
    """Return every slice with its neighbours as channels: (S, H, W) to (S, 2k+1, H, W), edges replicated.

    Raises:
        DataError: if `channels` is even.
    """
    if channels % 2 == 0:
        raise DataError(f"a volume needs an odd number of channels, got {channels}; choose 1, 3, 5, ...")
    steps = np.arange(channels) - channels // 2
    at = np.arange(len(slices))[:, None] + steps
    return np.asarray(slices[np.clip(at, 0, len(slices) - 1)])


def nibabel() -> Any:
    """Return the package nibabel; it is slow to import, so it is imported with the first volume."""
    import nibabel

    return nibabel


def _load(path: Path, *, whole: bool = False) -> Any:
    """Open a volume with 3 axes; `whole` reads a compressed file to its end, which holds its checksum."""
    _check_compression(path)
    nib = nibabel()
    image = _decompressed(path) if whole and path.name.lower().endswith(".gz") else nib.load(path)
    if len(image.shape) > 3 and set(image.shape[3:]) == {1}:
        image = image.slicer[:, :, :, *([0] * (len(image.shape) - 3))]
    if len(image.shape) == 2:
        image = type(image)(image.dataobj.reshape((*image.shape, 1)), image.affine, image.header)
    if len(image.shape) != 3:
        fix = "keep one time or channel; convert a one-hot mask to class numbers"
        raise DataError(f"a volume must have 3 axes, got shape {image.shape}; {fix}")
    if 0 in image.shape:
        raise DataError(f"a volume must have voxels, got shape {image.shape}; leave it out")
    if (voxel := image.get_data_dtype()).kind not in "iufb":
        raise DataError(
            f"a volume must have one real number per voxel, got {_NAMED.get(voxel.kind, voxel)}; convert it"
        )
    if not np.isfinite(image.affine).all() or not np.linalg.det(image.affine[:3, :3]):
        raise DataError("the affine must be finite and invertible, got one that is not; correct the header")
    height, width, _ = (image.shape[axis] for axis in _stored_axes(image))
    if 1 in (height, width):
        got = f"{height}x{width} voxels, {image.shape} along {''.join(nib.aff2axcodes(image.affine))}"
        raise DataError(
            f"axial slices must be at least 2x2 voxels, got {got}; save a single slice with an axial affine, or as PNG"
        )
    return image


def _stored_axes(image: Any) -> np.ndarray:
    """Return the stored axis of each canonical axis."""
    return np.argsort(nibabel().orientations.io_orientation(image.affine)[:, 0])


def _check_compression(path: Path) -> None:
    """Raise DataError if a volume's suffix contradicts its compression."""
    with path.open("rb") as file:
        start = file.read(4)
    packed = path.name.lower().endswith(".gz")
    if packed and _version(start):
        raise DataError("a .nii.gz must be compressed, but this one is not compressed; rename it to .nii")
    if not packed and start.startswith(_GZIP):
        raise DataError("a .nii must not be compressed, but this one is compressed; rename it to .nii.gz")


def _version(content: bytes) -> int:
    """Return the NIfTI version, 1 or 2, by the header's size in either byte order at the beginning, else 0."""
    sizes = (int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big"))
    return next((version for version, size in _HEADERS.items() if size in sizes), 0)


def _decompressed(path: Path) -> Any:
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError) as error:
        what = "" if "gzipped file" in str(error) else "checksum: "
        raise DataError(f"cannot be read ({what}{error}); restore it or leave it out") from None
    nib = nibabel()
    return (nib.Nifti2Image if _version(content) == 2 else nib.Nifti1Image).from_bytes(content)


def read_voxels(path: Path) -> np.ndarray:
    """Read (S, H, W) finite float32 in canonical orientation; raise DataError as `read_volume`."""
    image = _load(path, whole=True)
    voxels: np.ndarray = nibabel().as_closest_canonical(image).get_fdata(dtype=np.float32)
    if bad := int(np.count_nonzero(~np.isfinite(voxels))):
        raise DataError(f"voxels must be finite, got {bad} that are NaN or infinite; correct the volume")
    return np.moveaxis(voxels, 2, 0)
