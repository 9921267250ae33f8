"""Reading of one image or mask file: PNG, JPEG and TIFF through `photographs`, NIfTI through `volumes`."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from harmofl.data.decoding import photographs, volumes
from harmofl.data.decoding.photographs import read_stored
from harmofl.data.decoding.stored_pixels import Header, Stored
from harmofl.data.layout.file_names import is_volume, suffix_of
from harmofl.data.layout.site_files import is_file
from harmofl.errors import DataError
from harmofl.types import Levels

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""The weights of red, green and blue in grey, as in Pillow's mode L (ITU-R 601-2)."""


def read_header(path: Path, *, turned: bool = True) -> Header:
    """Read a file's header; `turned` finds the orientation of a PNG even if it follows the pixels.

    Raises:
        DataError: if the file is missing or not an image.
    """
    with reading(path):
        if is_volume(path.name):
            geometry = volumes.read_geometry(path)
            return Header(geometry.shape[:2], colour=False, kind=f"volume, {geometry.dtype}")
        return photographs.read_photograph_header(path, turned=turned)


def header_if_readable(path: Path) -> Header | None:
    """Read a file's header without its orientation, or return None for an error, which decoding reports."""
    try:
        return read_header(path, turned=False)
    except DataError:
        return None


def read_image(path: Path, levels: Levels = "rounded") -> np.ndarray:
    """Read a photograph as (1, H, W) or (3, H, W), or a volume as (S, H, W), see `volumes.read_volume`.

    Returns:
        uint8, where v stands for v/255, or float32 in [0, 1] for photographs of more than 8 bit.

    Raises:
        DataError: if the file is missing, truncated or of an unsupported kind, without naming it.
    """
    with reading(path):
        return volumes.read_volume(path, levels) if is_volume(path.name) else read_photograph(path)


def read_mask(path: Path) -> np.ndarray:
    """Read the stored values of a mask, (1, H, W) or (S, H, W) whole numbers.

    Raises:
        DataError: if the file is missing, truncated or in colour, or a volume holds numbers that are not whole.
    """
    with reading(path):
        return volumes.read_label_volume(path) if is_volume(path.name) else _read_flat_mask(path)


@contextmanager
def reading(path: Path, also: tuple[str, ...] = ()) -> Iterator[None]:
    """Turn errors of decoders into a DataError of one line, and silence their warnings and logs.

    `also` are additional suffixes to allow.
    """
    if not is_file(path):
        raise DataError("file is missing; restore it or leave it out")
    if not suffix_of(path.name) and path.suffix.lower() not in also:
        raise DataError("must be PNG, JPEG, TIFF or NIfTI; convert it or leave it out")
    try:
        with QUIET:
            yield
    except DataError:
        raise
    except Exception as error:  # decoders raise many types for a damaged header: KeyError, MemoryError, their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].replace(str(path), path.name)
        raise DataError(f"cannot be read ({reason}); restore it or leave it out") from None


class _Quiet:
    """A context manager that silences logs of nibabel and tifffile and all warnings while any thread decodes.

    Logs and warnings belong to the whole process: the first thread to enter disables them, the last to leave restores
    them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._off = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._off.enter_context(warnings.catch_warnings(action="ignore"))
                for logger in map(logging.getLogger, ("nibabel.global", "tifffile")):
                    self._off.callback(setattr, logger, "disabled", logger.disabled)
                    logger.disabled = True
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._off.close()


QUIET = _Quiet()
"""The context in which decoders neither log nor warn."""


def read_photograph(source: Path | BinaryIO) -> np.ndarray:
    """Decode a photograph from a file or from memory, see `read_image`; call it inside `reading` or `quiet`."""
    image = read_stored(source)
    samples, white = image.samples, 2**image.bits - 1
    if samples.dtype.kind == "f":
        raise DataError(f"pixels must be 8 or 16 bit, got {8 * samples.itemsize}-bit floats; convert the file")
    if image.palette is not None:
        samples, white = palette_colours(image), 255
    planes = np.moveaxis(white - samples if image.white_is_zero else samples, 2, 0)
    if 255 % white:
        return np.ascontiguousarray(planes, dtype=np.float32) / np.float32(white)
    return np.ascontiguousarray(planes * np.uint8(255 // white), dtype=np.uint8)


def palette_colours(image: Stored) -> np.ndarray:
    """Return the (H, W, 3) uint8 colours of an image with a palette."""
    assert image.palette is not None
    indices = image.samples[..., 0]
    if indices.max() >= len(image.palette):
        raise DataError(f"its palette must have a colour for each pixel, got index {indices.max()}; convert the file")
    return np.asarray(image.palette[indices])


def _read_flat_mask(path: Path) -> np.ndarray:
    image = read_stored(path)
    mask = image.samples
    if image.palette is not None:
        mask = _grey_palette(image.palette)[mask]
    if mask.shape[2] == 3:
        if (mask[..., :1] != mask).any():
            raise DataError("a mask must be grey with one number per pixel, got colours; convert it")
        mask = mask[..., :1]
    return np.moveaxis(mask, 2, 0)


def _grey_palette(entries: np.ndarray) -> np.ndarray:
    """Return the number of each index of a palette: its grey if all entries are grey, else the index itself.

    All entries are checked, not only the used ones, so that an index means the same in every mask of a data set.
    """
    meaning = np.arange(2**16, dtype=np.uint16)
    if len(entries) and (entries == entries[:, :1]).all():
        meaning[: len(entries)] = entries[:, 0]
    return meaning


def with_channels(planes: np.ndarray, channels: int) -> np.ndarray:
    """Convert a photograph of 1 or 3 planes to `channels` planes: grey is repeated, colour converted by Pillow's L.

    Raises:
        DataError: if `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise DataError(f"a photograph has 1 or 3 channels, got {channels}; choose 1 or 3")
    if len(planes) == channels:
        return planes
    if channels == 3:
        return np.repeat(planes, 3, axis=0)
    if planes.dtype != np.uint8:
        return np.tensordot(_LUMA, planes, axes=1)[None]
    return np.array(Image.fromarray(np.ascontiguousarray(np.moveaxis(planes, 0, 2))).convert("L"))[None]


def as_float(images: np.ndarray) -> np.ndarray:
    """Return 8-bit images v as v / 255, float32; others already are float32 in [0, 1]."""
    return images / np.float32(255) if images.dtype == np.uint8 else images


def resize(planes: np.ndarray, size: tuple[int, int], *, nearest: bool = False) -> np.ndarray:
    """Resize every (H, W) plane of (P, H, W) uint8 or float32 to `size`, bilinear unless `nearest`."""
    if planes.shape[1:] == size:
        return planes
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    height, width = size
    resized = [np.asarray(Image.fromarray(plane).resize((width, height), how)) for plane in planes]
    stacked = np.stack(resized)
    return np.clip(stacked, 0, 1) if stacked.dtype == np.float32 else stacked
