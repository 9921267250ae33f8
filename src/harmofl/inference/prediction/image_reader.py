"""Decoded images in the network's format, with the data needed to write a mask that fits the file."""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from harmofl.data.decoding.images import QUIET, read_image, resize, with_channels
from harmofl.data.decoding.volume_preprocessing import PreparedVolume, read_prepared_volume
from harmofl.data.decoding.volumes import neighbourhoods, nibabel
from harmofl.data.layout.file_names import suffix_of
from harmofl.data.volume_settings import VolumeSettings
from harmofl.errors import DataError
from harmofl.inference.prediction.inputs import Input
from harmofl.ingest.dicom.dicom_cases import compact
from harmofl.ingest.dicom.dicom_photographs import read_dicom_photograph
from harmofl.ingest.dicom.dicom_volumes import Volume, read_dicom_volume
from harmofl.ingest.image_writing import save_volume
from harmofl.types import Levels


@dataclass(frozen=True)
class Picture:
    """One decoded image.

    `planes` are (1 or 3, H, W) of a photograph, or (S, H, W) of a volume in canonical orientation; uint8, or float32 in
    [0, 1].
    """

    planes: np.ndarray
    volume: bool = False
    stored: Any = field(default=None, repr=False)  # for volumes, the NIfTI image on whose voxels masks are written
    dicom: Volume | None = field(default=None, repr=False)  # the assembled series, if the image is one
    prepared: PreparedVolume | None = field(default=None, repr=False)  # for models of whole volumes

    @property
    def shape(self) -> tuple[int, int]:
        """The size (H, W)."""
        return self.planes.shape[1], self.planes.shape[2]

    def arranged(self, channels: int, size: tuple[int, int] | None) -> np.ndarray:
        """Return the image as (S, C, H, W), resized as in training, or at its own size if `size` is None.

        Raises:
            DataError: if the image cannot have this number of channels.
        """
        size = size or self.shape
        if self.volume:
            return neighbourhoods(resize(self.planes, size), channels)
        return resize(with_channels(self.planes, channels), size)[None]


def read_prepared(one: Input, levels: Levels = "rounded", volumes: VolumeSettings | None = None) -> Picture:
    """Decode an image in the same way as for training: with the same grey levels of volumes, or as `volumes`.

    Raises:
        DataError: if the image cannot be read, or is no volume where the model needs one; the message does not name it.
    """
    if volumes is not None and one.kind == "photograph":
        raise DataError("must be a NIfTI volume or a DICOM series, as in training, got a photograph; leave it out")
    if one.series is not None:
        return _read_series(one, levels, volumes)
    path = one.files[0]
    if one.kind == "volume":
        planes = read_image(path, levels)
        prepared = read_prepared_volume(path, volumes) if volumes else None
        with QUIET:
            return Picture(planes, volume=True, stored=nibabel().load(path), prepared=prepared)
    if suffix_of(path.name):
        return Picture(read_image(path))
    pixels = read_dicom_photograph(path)
    return Picture(pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, 2, 0)))


def _read_series(one: Input, levels: Levels, volumes: VolumeSettings | None) -> Picture:
    """Read a series through the NIfTI file that an import would write, so that nothing differs from training."""
    assert one.series is not None
    volume = read_dicom_volume(one.series)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "series.nii.gz"
        save_volume(compact(volume.voxels), volume.affine, path)
        planes = read_image(path, levels)
        prepared = read_prepared_volume(path, volumes) if volumes else None
    stored = nibabel().Nifti1Image(np.zeros(volume.voxels.shape, np.uint8), volume.affine)
    return Picture(planes, volume=True, stored=stored, dicom=volume, prepared=prepared)


def to_stored(labels: np.ndarray, stored: Any) -> np.ndarray:
    """Return (S, H, W) labels in canonical orientation as (X, Y, Z) on the voxels of a NIfTI image."""
    orientations = nibabel().orientations
    canonical = orientations.axcodes2ornt("RAS")
    back = orientations.ornt_transform(canonical, orientations.io_orientation(stored.affine))
    found: np.ndarray = orientations.apply_orientation(np.moveaxis(labels, 0, 2), back)
    if found.shape != (*stored.shape, 1)[:3]:  # a single slice may be stored with two axes
        raise DataError(f"a mask must have the shape of its volume, {stored.shape[:3]}, got {found.shape}")
    return found
