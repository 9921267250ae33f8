"""Single DICOM images: photographs as they are displayed, and label maps as they are stored."""

from pathlib import Path

import numpy as np

from harmofl.data.decoding.volumes import CLIP_QUANTILE
from harmofl.data.dicom.files import processing, pydicom, reading
from harmofl.errors import DataError


def read_photograph(path: Path) -> np.ndarray:
    """A single image as it is displayed: (rows, columns) or (rows, columns, 3) uint8.

    Grey values go through the file's window, or else from the minimum to the 0.99 quantile; inverted ones are turned.

    Raises:
        DataError: if it has several frames.
    """
    with reading(path):
        data = pydicom().dcmread(path)
        pixels: np.ndarray = data.pixel_array
        colour = data.get("SamplesPerPixel", 1) == 3
        if pixels.ndim != 2 + colour:
            raise DataError("must be one image, got several frames without places in space; split it into files")
        if data.PhotometricInterpretation == "PALETTE COLOR":
            return _eight_bit(np.asarray(processing().apply_color_lut(pixels, data)))
        if colour:
            return _eight_bit(pixels)
        windowed = "WindowCenter" in data or "VOILUTSequence" in data
        grey = processing().apply_rescale(pixels, data).astype(np.float32)
        if windowed:
            grey = processing().apply_voi_lut(grey, data).astype(np.float32)
        low, high = float(grey.min()), float(grey.max() if windowed else np.quantile(grey, CLIP_QUANTILE))
        shown = np.clip((grey - low) / max(high - low, 1e-12), 0, 1)
        shown = 1 - shown if data.PhotometricInterpretation == "MONOCHROME1" else shown
        grey_bytes: np.ndarray = np.rint(shown * 255).astype(np.uint8)
        return grey_bytes


def read_label_map(path: Path) -> np.ndarray:
    """A single image whose pixels are class numbers: (rows, columns) as stored."""
    with reading(path):
        pixels: np.ndarray = pydicom().dcmread(path).pixel_array
        if pixels.ndim != 2:
            raise DataError("a mask must be one image with one number a pixel; convert it")
        return pixels


def _eight_bit(pixels: np.ndarray) -> np.ndarray:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels.astype(np.uint8)
