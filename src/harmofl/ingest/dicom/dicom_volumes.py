"""Reading of a DICOM series as a volume, and of a DICOM segmentation on the voxels of its image series.

A series becomes a volume in voxel order (column, row, slice) with the affine of NIfTI (RAS, millimetres), so that a
mask drawn on a NIfTI copy of the series fits. DICOM standard PS3.3, C.7.6.2 (image plane), C.8.20 (segmentation).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harmofl.errors import DataError
from harmofl.ingest.dicom.dicom_files import Series, pydicom, reading_dicom

_SAME_PLACE, _SAME_WAY, _GAP = 1e-2, 1e-3, 1.5
"""Tolerances: position in millimetres, direction cosines, and maximum gap as a multiple of the smallest."""
_RESCALE, _SEGMENT = "PixelValueTransformationSequence", "SegmentIdentificationSequence"


@dataclass(frozen=True)
class Slice:
    """One plane of a series.

    Args:
        pixels: (rows, columns), rescaled by the file's slope and intercept.
        origin: (3,) centre of its first pixel, in millimetres to the left, back and head (LPS).
        along_rows: (3,) unit vector in which the column index grows.
        along_columns: (3,) unit vector in which the row index grows.
        spacing: distances of rows and of columns, in millimetres.
        label: for a segmentation, the segment of its pixels above 0; 0 if the pixels are segment numbers.
    """

    pixels: np.ndarray
    origin: np.ndarray
    along_rows: np.ndarray
    along_columns: np.ndarray
    spacing: tuple[float, float]
    label: int = 0

    @property
    def normal(self) -> np.ndarray:
        """The unit vector perpendicular to the plane."""
        return np.asarray(np.cross(self.along_rows, self.along_columns))


@dataclass(frozen=True)
class Volume:
    """A volume of a series: (columns, rows, slices) voxels, its slices, and the affine from voxels to RAS millimetres.

    `order` is the index of each slice among the images of the files, in their order.
    """

    voxels: np.ndarray
    slices: tuple[Slice, ...]
    affine: np.ndarray
    order: tuple[int, ...] = ()


def read_dicom_volume(series: Series) -> Volume:
    """Read the slices of a series and stack them into a volume.

    Raises:
        DataError: if slices differ in size or direction, two have the same position, or one is missing.
    """
    planes = [plane for path in series.files for plane in _planes(path)]
    first = planes[0]
    for plane in planes:
        if plane.pixels.shape != first.pixels.shape or _turned(plane, first):
            raise DataError(
                f"slices of series {series.name!r} must have one size and direction; leave it out if it is a localizer"
            )
    order = sorted(range(len(planes)), key=lambda k: float(planes[k].origin @ first.normal))
    planes = [planes[k] for k in order]
    places = np.array([plane.origin @ first.normal for plane in planes])
    steps = np.diff(places)
    if len(steps) and steps.min() < _SAME_PLACE:
        where = f"at the same position ({places[int(steps.argmin())]:.1f} mm)"
        fix = "keep echoes, phases and repetitions in separate folders"
        raise DataError(f"two slices of series {series.name!r} are {where}; {fix}")
    if len(steps) and steps.max() > _GAP * steps.min():
        at = int(steps.argmax())
        between = f"between {places[at]:.1f} and {places[at + 1]:.1f} mm"
        raise DataError(f"a slice of series {series.name!r} is missing {between}; restore it")
    voxels = np.stack([plane.pixels.T for plane in planes], axis=2)
    return Volume(voxels, tuple(planes), _affine(planes), tuple(order))


def _turned(one: Slice, other: Slice) -> bool:
    rows = np.abs(one.along_rows - other.along_rows).max()
    columns = np.abs(one.along_columns - other.along_columns).max()
    return bool(max(rows, columns) > _SAME_WAY)


def _affine(planes: Sequence[Slice]) -> np.ndarray:
    """Return the affine from voxels to RAS millimetres, sheared for a tilted stack; DICOM's axes are LPS."""
    first, last = planes[0], planes[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.along_rows * first.spacing[1]
    affine[:3, 1] = first.along_columns * first.spacing[0]
    affine[:3, 2] = (last.origin - first.origin) / (len(planes) - 1) if len(planes) > 1 else first.normal
    affine[:3, 3] = first.origin
    affine[:2] *= -1
    return affine


def read_segmentation(series: Series, image: Volume) -> np.ndarray:
    """Read a DICOM SEG on the voxels of its image: (columns, rows, slices) segment numbers, 0 elsewhere.

    Raises:
        DataError: if its frames do not lie on the volume's slices, or two segments overlap.
    """
    labels = np.zeros(image.voxels.shape, dtype=np.int32)
    places = np.array([plane.origin @ image.slices[0].normal for plane in image.slices])
    for frame in (frame for path in series.files for frame in _planes(path)):
        at = int(np.abs(places - frame.origin @ image.slices[0].normal).argmin())
        plane = image.slices[at]
        if np.abs(plane.origin - frame.origin).max() > 0.1 or _turned(frame, plane):
            raise DataError("frames of a segmentation must lie on slices of its image; export it on the image's grid")
        if frame.pixels.shape != plane.pixels.shape:
            got, want = ("x".join(map(str, part.pixels.shape)) for part in (frame, plane))
            raise DataError(f"a segmentation must have its image's rows and columns ({want}), got {got}")
        inside = frame.pixels.T > 0
        if (labels[..., at][inside] > 0).any():
            raise DataError("segments must not overlap, since a pixel has one label; export them separately")
        labels[..., at][inside] = frame.label or frame.pixels.T[inside]
    return labels


def _planes(path: Path) -> Iterator[Slice]:
    with reading_dicom(path):
        data = pydicom().dcmread(path)
        if data.get("SamplesPerPixel", 1) != 1:
            raise DataError("a series must be grey, got colours; import its images as photographs")
        pixels: np.ndarray = data.pixel_array
        if "PerFrameFunctionalGroupsSequence" not in data:
            if pixels.ndim != 2 or "ImagePositionPatient" not in data:
                raise DataError("a slice must be one image with its position; leave the file out")
            grey = _upright(pydicom().pixels.apply_rescale(pixels, data), data)
            yield _plane(grey, data.ImagePositionPatient, data.ImageOrientationPatient, data.PixelSpacing)
            return
        if data.get("SegmentationType") == "FRACTIONAL":
            pixels = pixels >= data.get("MaximumFractionalValue", 255) / 2
        pixels = _upright(pixels, data)
        shared = data.SharedFunctionalGroupsSequence[0]
        for frame, own in zip(
            pixels.reshape(-1, *pixels.shape[-2:]), data.PerFrameFunctionalGroupsSequence, strict=True
        ):
            yield _frame(frame, own, shared)


def _upright(pixels: np.ndarray, data: Any) -> np.ndarray:
    """Negate the values of MONOCHROME1, where the largest is the darkest; only their order and distances matter."""
    return -pixels.astype(np.float64) if data.PhotometricInterpretation == "MONOCHROME1" else pixels


def _frame(pixels: np.ndarray, own: Any, shared: Any) -> Slice:
    """Build the slice of one frame of a multi-frame file, from its own and the shared functional groups."""

    def group(name: str) -> Any:
        return (own if name in own else shared)[name][0]

    rescale = next((part.PixelValueTransformationSequence[0] for part in (own, shared) if _RESCALE in part), None)
    if rescale is not None:
        pixels = np.asarray(pixels * float(rescale.RescaleSlope) + float(rescale.RescaleIntercept))
    segment = int(own.SegmentIdentificationSequence[0].ReferencedSegmentNumber) if _SEGMENT in own else 0
    return _plane(
        pixels,
        group("PlanePositionSequence").ImagePositionPatient,
        group("PlaneOrientationSequence").ImageOrientationPatient,
        group("PixelMeasuresSequence").PixelSpacing,
        segment,
    )


def _plane(pixels: np.ndarray, origin: Any, direction: Any, spacing: Any, label: int = 0) -> Slice:
    cosines = np.array(direction, dtype=np.float64)
    between = (float(spacing[0]), float(spacing[1]))
    return Slice(pixels, np.array(origin, dtype=np.float64), cosines[:3], cosines[3:], between, label)
