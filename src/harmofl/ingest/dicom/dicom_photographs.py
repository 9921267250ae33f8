"""Reading of single DICOM images: photographs as displayed, and label maps as stored."""

from pathlib import Path
from typing import Any

import numpy as np

from harmofl.data.decoding.volumes import contrast
from harmofl.errors import DataError
from harmofl.ingest.dicom.dicom_files import pydicom, reading_dicom


def read_dicom_photograph(path: Path) -> np.ndarray:
    """Read a single image as displayed: (rows, columns) or (rows, columns, 3) uint8.

    Grey values are scaled by the file's table or window, or else between the bounds of `volumes.contrast`; values of
    MONOCHROME1 are inverted.

    Raises:
        DataError: if it has several frames, or its window is invalid.
    """
    with reading_dicom(path):
        data = pydicom().dcmread(path)
        pixels: np.ndarray = data.pixel_array
        colour = data.get("SamplesPerPixel", 1) == 3
        if pixels.ndim != 2 + colour:
            raise DataError("must be one image, got several frames without positions; split it into files")
        if data.PhotometricInterpretation == "PALETTE COLOR":
            return _eight_bit(np.asarray(pydicom().pixels.apply_color_lut(pixels, data)), 16)
        if colour:
            return _eight_bit(pixels, int(data.BitsStored))
        shown = _displayed(pydicom().pixels.apply_rescale(pixels, data).astype(np.float64), data)
        shown = 1 - shown if data.PhotometricInterpretation == "MONOCHROME1" else shown
        return np.asarray(np.rint(shown * 255).astype(np.uint8))


def _displayed(grey: np.ndarray, data: Any) -> np.ndarray:
    """Scale to [0, 1] by the file's table or its first window (PS3.3, C.11.2), or else as for a volume."""
    if data.get("VOILUTSequence"):  # the sequence may have no item, and a window no value
        return _looked_up(grey, data.VOILUTSequence[0])
    if None in (data.get("WindowCenter"), data.get("WindowWidth")):
        return _linear(grey, *contrast(grey))
    centre, width = (float(np.atleast_1d(data[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    function = str(data.get("VOILUTFunction") or "LINEAR").upper()
    if width < (function == "LINEAR") or width <= 0:
        raise DataError(f"a window must have a width of at least 1, got {width:g}; correct WindowWidth")
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (grey - centre) / width)))
    if function == "LINEAR":
        return _linear(grey, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
    if function == "LINEAR_EXACT":
        return _linear(grey, centre - width / 2, centre + width / 2)
    raise DataError(f"VOILUTFunction must be LINEAR, LINEAR_EXACT or SIGMOID, got {function}; export it with a window")


def _linear(grey: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.asarray(np.clip((grey - low) / max(high - low, 1e-12), 0, 1))


def _looked_up(grey: np.ndarray, table: Any) -> np.ndarray:
    """Scale to [0, 1] by a table; pydicom's `apply_voi` counts modulo 256 for tables with entries of 8 bit."""
    entries, first, bits = (int(number) for number in table.LUTDescriptor)
    values = table.LUTData
    if isinstance(values, bytes):
        values = np.frombuffer(values, dtype=np.uint8 if len(values) < 2 * (entries or 2**16) else "<u2")
    shown = np.asarray(values, dtype=np.float64) / (2**bits - 1)
    return np.asarray(shown[np.clip(np.rint(grey).astype(np.int64) - first, 0, len(shown) - 1)])


def read_label_map(path: Path) -> np.ndarray:
    """Read a single image of class numbers: (rows, columns) as stored.

    Raises:
        DataError: if it has several frames or colours.
    """
    with reading_dicom(path):
        pixels: np.ndarray = pydicom().dcmread(path).pixel_array
        if pixels.ndim != 2:
            raise DataError("a mask must be one image with one number per pixel; convert it")
        return pixels


def _eight_bit(pixels: np.ndarray, bits: int) -> np.ndarray:
    return (pixels >> max(bits - 8, 0)).astype(np.uint8) if pixels.dtype != np.uint8 else pixels
