"""DICOM files as volumes, photographs and label maps, by pydicom: for importing, so that training needs neither.

A series becomes a volume in voxel order (column, row, slice) with the affine that NIfTI has (RAS, millimetres), so that
a mask drawn on a NIfTI copy of the series fits. DICOM standard PS3.3, C.7.6.2 (image plane), C.8.20 (segmentation).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harmofl.data.decoding.volumes import CLIP_QUANTILE
from harmofl.errors import ConfigError, DataError

SUFFIXES = (".dcm", ".dicom", ".ima")
_MAGIC_AT, _MAGIC = 128, b"DICM"
_SAME_PLACE, _SAME_WAY, _GAP = 1e-2, 1e-3, 1.5
"""Millimetres, difference of direction cosines, and how many slice distances apart slices of one volume may be."""


@dataclass(frozen=True)
class Slice:
    """One plane of a series.

    Args:
        pixels: (rows, columns), rescaled as the file says.
        origin: (3,) centre of its first pixel, in millimetres to the left, back and head (LPS).
        along_rows: (3,) unit vector in which the column index grows.
        along_columns: (3,) unit vector in which the row index grows.
        spacing: distance of rows, of columns, in millimetres.
        label: of a segmentation: which segment, else 0.
    """

    pixels: np.ndarray
    origin: np.ndarray
    along_rows: np.ndarray
    along_columns: np.ndarray
    spacing: tuple[float, float]
    label: int = 0

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the plane."""
        across: np.ndarray = np.cross(self.along_rows, self.along_columns)
        return across


@dataclass(frozen=True)
class Volume:
    """A series put together: (columns, rows, slices) voxels, the slices it is of, and voxel to RAS millimetres."""

    voxels: np.ndarray
    slices: tuple[Slice, ...]
    affine: np.ndarray


@dataclass(frozen=True)
class Series:
    """Files that belong together: an identifier, the patient's, and the files."""

    uid: str
    patient: str
    modality: str
    files: tuple[Path, ...]


def is_dicom(path: Path) -> bool:
    """Tell by the suffix, or where there is none by the four letters that DICOM files begin with."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # a file of a series may be called IM.1 or 1.2.840.113
        return False
    try:
        with path.open("rb") as file:
            file.seek(_MAGIC_AT)
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def series_in(files: Sequence[Path]) -> list[Series]:
    """Group files by the series they say they are of; what holds no image, such as a DICOMDIR, is left out.

    Raises:
        DataError: naming a file that is no DICOM.
        ConfigError: if pydicom is not installed.
    """
    groups: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    for path in files:
        with _reading(path):
            header = _pydicom().dcmread(path, stop_before_pixels=True)
        if "Rows" in header:
            groups[str(header.get("SeriesInstanceUID", path))].append((path, header))
    return [
        Series(
            uid,
            str(members[0][1].get("PatientID", "") or ""),
            str(members[0][1].get("Modality", "") or ""),
            tuple(path for path, _ in members),
        )
        for uid, members in groups.items()
    ]


def frames(path: Path) -> int:
    """How many images a file holds."""
    with _reading(path):
        return int(_pydicom().dcmread(path, stop_before_pixels=True).get("NumberOfFrames", 1) or 1)


def has_place(series: Series) -> bool:
    """Tell whether the files say where in space they are, so that they make a volume; a photograph does not."""
    with _reading(series.files[0]):
        header = _pydicom().dcmread(series.files[0], stop_before_pixels=True)
        return "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header


def read_volume(series: Series) -> Volume:
    """Put a series together.

    Raises:
        DataError: if its planes differ in size or direction, two are at one place, or one is missing.
    """
    planes = [plane for path in series.files for plane in _planes(path)]
    first = planes[0]
    for plane in planes:
        if plane.pixels.shape != first.pixels.shape or _turned(plane, first):
            raise DataError("slices must have one size and direction; keep each series in a folder of its own")
    planes.sort(key=lambda plane: float(plane.origin @ first.normal))
    places = np.array([plane.origin @ first.normal for plane in planes])
    steps = np.diff(places)
    if len(steps) and steps.min() < _SAME_PLACE:
        raise DataError(
            f"two slices are at one place ({places[int(steps.argmin())]:.1f} mm); keep echoes, phases and repetitions "
            "in folders of their own"
        )
    if len(steps) and steps.max() > _GAP * float(np.median(steps)):
        at = int(steps.argmax())
        raise DataError(f"a slice is missing between {places[at]:.1f} and {places[at + 1]:.1f} mm; restore it")
    voxels = np.stack([plane.pixels.T for plane in planes], axis=2)
    return Volume(voxels, tuple(planes), _affine(planes, float(np.median(steps)) if len(steps) else 1.0))


def _turned(one: Slice, other: Slice) -> bool:
    rows = np.abs(one.along_rows - other.along_rows).max()
    columns = np.abs(one.along_columns - other.along_columns).max()
    return bool(max(rows, columns) > _SAME_WAY)


def _affine(planes: Sequence[Slice], step: float) -> np.ndarray:
    """Voxel to RAS millimetres; DICOM's axes run to the left and to the back."""
    first = planes[0]
    affine = np.eye(4)
    affine[:3, 0] = first.along_rows * first.spacing[1]
    affine[:3, 1] = first.along_columns * first.spacing[0]
    affine[:3, 2] = first.normal * step
    affine[:3, 3] = first.origin
    affine[:2] *= -1
    return affine


def read_segmentation(series: Series, image: Volume) -> np.ndarray:
    """A DICOM SEG on the voxels of the volume it was drawn on: (columns, rows, slices) segment numbers, 0 elsewhere.

    Raises:
        DataError: if its frames are not on the volume's slices, or two segments overlap.
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
            raise DataError("segments must not overlap, since a pixel has one label; export them apart")
        labels[..., at][inside] = frame.label
    return labels


def read_photograph(path: Path) -> np.ndarray:
    """A single image as it is displayed: (rows, columns) or (rows, columns, 3) uint8.

    Grey values go through the file's window, or else from the minimum to the 0.99 quantile; inverted ones are turned.

    Raises:
        DataError: if it has several frames.
    """
    with _reading(path):
        data = _pydicom().dcmread(path)
        pixels = _pixels(data)
        colour = data.get("SamplesPerPixel", 1) == 3
        if pixels.ndim != 2 + colour:
            raise DataError("must be one image, got several frames without places in space; split it into files")
        if data.PhotometricInterpretation == "PALETTE COLOR":
            return _eight_bit(np.asarray(_processing().apply_color_lut(pixels, data)))
        if colour:
            return _eight_bit(pixels)
        windowed = "WindowCenter" in data or "VOILUTSequence" in data
        grey = _processing().apply_rescale(pixels, data).astype(np.float32)
        if windowed:
            grey = _processing().apply_voi_lut(grey, data).astype(np.float32)
        low, high = float(grey.min()), float(grey.max() if windowed else np.quantile(grey, CLIP_QUANTILE))
        shown = np.clip((grey - low) / max(high - low, 1e-12), 0, 1)
        shown = 1 - shown if data.PhotometricInterpretation == "MONOCHROME1" else shown
        grey_bytes: np.ndarray = np.rint(shown * 255).astype(np.uint8)
        return grey_bytes


def read_label_map(path: Path) -> np.ndarray:
    """A single image whose pixels are class numbers: (rows, columns) as stored."""
    with _reading(path):
        pixels = _pixels(_pydicom().dcmread(path))
        if pixels.ndim != 2:
            raise DataError("a mask must be one image with one number a pixel; convert it")
        return pixels


def _eight_bit(pixels: np.ndarray) -> np.ndarray:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels.astype(np.uint8)


def _planes(path: Path) -> Iterator[Slice]:
    with _reading(path):
        data = _pydicom().dcmread(path)
        if data.get("SamplesPerPixel", 1) != 1:
            raise DataError("a series must be grey, got colours; import its images as photographs")
        pixels = _pixels(data)
        if "PerFrameFunctionalGroupsSequence" not in data:
            if pixels.ndim != 2 or "ImagePositionPatient" not in data:
                raise DataError("a slice must be one image with its position; leave the file out")
            grey = _processing().apply_rescale(pixels, data)
            yield _plane(grey, data.ImagePositionPatient, data.ImageOrientationPatient, data.PixelSpacing)
            return
        shared = data.SharedFunctionalGroupsSequence[0]
        for frame, own in zip(
            pixels.reshape(-1, *pixels.shape[-2:]), data.PerFrameFunctionalGroupsSequence, strict=True
        ):
            yield _frame(frame, own, shared)


def _frame(pixels: np.ndarray, own: Any, shared: Any) -> Slice:
    """A frame of a file with many; what all frames share is said once."""

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


_RESCALE, _SEGMENT = "PixelValueTransformationSequence", "SegmentIdentificationSequence"


def _plane(pixels: np.ndarray, origin: Any, direction: Any, spacing: Any, label: int = 0) -> Slice:
    cosines = np.array(direction, dtype=np.float64)
    between = (float(spacing[0]), float(spacing[1]))
    return Slice(pixels, np.array(origin, dtype=np.float64), cosines[:3], cosines[3:], between, label)


def _pixels(data: Any) -> np.ndarray:
    pixels: np.ndarray = data.pixel_array
    return pixels


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever pydicom raises over a file into one line that names it."""
    try:
        yield
    except (DataError, ConfigError) as error:
        raise type(error)(str(error) if path.name in str(error) else f"{path.name}: {error}") from None
    except Exception as error:  # pydicom raises anything over a damaged file
        reason = " ".join(str(error).split()[:30]) or type(error).__name__
        fix = "restore it or leave it out"
        if "missing dependencies" in str(error):
            fix = "install the decoder: pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
        raise DataError(f"{path.name}: cannot be read as DICOM ({reason}); {fix}") from None


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise ConfigError("DICOM files need pydicom; install it with: pip install 'harmofl[dicom]'") from None
    return pydicom


def _processing() -> Any:
    from pydicom.pixels import processing

    return processing
