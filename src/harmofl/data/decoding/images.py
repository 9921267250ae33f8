"""Reading one image or mask file: PNG, JPEG and TIFF here, NIfTI through `volumes`."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from harmofl.data.decoding import volumes
from harmofl.data.layout.files import is_file, is_volume, suffix_of
from harmofl.errors import DataError
from harmofl.types import Levels

_GREY = ("1", "L", "LA", "La")
_MODES = {"1": "black and white", "L": "grey", "LA": "grey with alpha", "P": "palette", "RGBA": "RGB with alpha"}
_ORIENTATION = 0x0112  # EXIF


@dataclass(frozen=True)
class Header:
    """What a file says of itself without being decoded.

    Args:
        size: (H, W).
        colour: or grey.
        deep: whether it has 16 bits.
        kind: such as "RGB, 8 bit" or "volume, int16".
        alpha: whether it has an alpha channel.
        turned: whether a viewer would show it turned or mirrored (EXIF orientation).
    """

    size: tuple[int, int]
    colour: bool
    deep: bool
    kind: str
    alpha: bool = False
    turned: bool = False


def read_header(path: Path) -> Header:
    """Read a file's header.

    Raises:
        DataError: if the file is missing or not an image.
    """
    with reading(path):
        if is_volume(path.name):
            geometry = volumes.read_geometry(path)
            return Header(geometry.shape[:2], colour=False, deep=False, kind=f"volume, {geometry.dtype}")
        with Image.open(path) as image:
            deep = image.mode.startswith("I")
            return Header(
                (image.height, image.width),
                colour=not deep and image.mode not in _GREY,
                deep=deep,
                kind=f"{'grey' if deep else _MODES.get(image.mode, image.mode)}, {16 if deep else 8} bit",
                alpha=image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info,
                turned=image.getexif().get(_ORIENTATION, 1) != 1,
            )


def read_image(path: Path, levels: Levels = "rounded") -> np.ndarray:
    """Read a photograph as (1, H, W) or (3, H, W), or a volume as (S, H, W), one plane a slice.

    Args:
        path: the file.
        levels: of a volume, see `volumes.read_volume`.

    Returns:
        uint8, where v stands for v/255, or float32 in [0, 1] for 16-bit grey photographs.

    Raises:
        DataError: if the file is missing, truncated or of an unsupported kind, without naming it.
    """
    with reading(path):
        return volumes.read_volume(path, levels) if is_volume(path.name) else read_photograph(path)


def read_mask(path: Path) -> np.ndarray:
    """Read a mask as it is stored, (1, H, W) or (S, H, W) whole numbers.

    Raises:
        DataError: if the file is missing or truncated, in colour or holds other than whole numbers.
    """
    with reading(path):
        return volumes.read_labels(path) if is_volume(path.name) else _read_flat_mask(path)


@contextmanager
def reading(path: Path, also: tuple[str, ...] = ()) -> Iterator[None]:
    """Turn whatever a decoder raises, warns or logs over a damaged file into one line; `also` are suffixes to allow."""
    if not is_file(path):
        raise DataError("file is missing; restore it or leave it out")
    if not suffix_of(path.name) and path.suffix.lower() not in also:
        raise DataError("must be PNG, JPEG, TIFF or NIfTI; convert it or leave it out")
    try:
        with _QUIET:
            yield
    except DataError:
        raise
    except Exception as error:  # decoders raise anything over a damaged header: KeyError, MemoryError, their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].replace(str(path), path.name)
        raise DataError(f"cannot be read ({reason}); restore it or leave it out") from None


class _Quiet:
    """Keeps nibabel's log and numpy's and Pillow's warnings off the terminal while any thread is decoding.

    Both belong to the whole process: the first thread that begins turns them off, the last that ends restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._off = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._off.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                logger = logging.getLogger("nibabel.global")
                self._off.callback(setattr, logger, "disabled", logger.disabled)
                logger.disabled = True
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._off.close()


_QUIET = _Quiet()


def quiet() -> _Quiet:
    """Within, decoders neither log nor warn."""
    return _QUIET


def read_photograph(source: Path | BinaryIO) -> np.ndarray:
    """Decode a photograph from a file or from memory, see `read_image`; to be called within `reading` or `quiet`."""
    with Image.open(source) as image:
        _one_page(image)
        if image.mode.startswith("I"):
            return _deep_grey(np.asarray(image))
        if image.mode == "F":
            raise DataError("pixels must be 8 or 16 bit, got 32-bit floats; convert the file")
        if image.mode in _GREY:
            return np.array(image.convert("L"))[None]
        return np.ascontiguousarray(np.moveaxis(np.asarray(image.convert("RGB")), 2, 0))


def _one_page(image: Image.Image) -> None:
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        what = "pages" if image.format == "TIFF" else "frames"
        raise DataError(f"must be one image, got a {image.format} of {pages} {what}; split it into files or use NIfTI")


def _deep_grey(pixels: np.ndarray) -> np.ndarray:
    if pixels.min() < 0 or pixels.max() > 65535:
        raise DataError(f"pixels must be 8 or 16 bit, got {pixels.min()}..{pixels.max()}; convert the file")
    return (pixels.astype(np.float32) / np.float32(65535))[None]


def _read_flat_mask(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        _one_page(image)
        mask = _grey_palette(image)[np.asarray(image)] if image.mode == "P" else np.asarray(image)
    if mask.ndim == 3:
        if mask.shape[2] in (3, 4) and (mask[..., :1] == mask[..., :3]).all():
            mask = mask[..., 0]
        else:
            raise DataError("a mask must be grey with one number a pixel, got colours; convert it")
    if not np.issubdtype(mask.dtype, np.integer) and mask.dtype != bool:
        raise DataError(f"a mask must hold whole numbers, got {mask.dtype}; convert it")
    return np.array(mask, dtype=np.uint8 if mask.dtype == bool else mask.dtype)[None]


def _grey_palette(image: Image.Image) -> np.ndarray:
    """Return what each index of a palette stands for: its grey if all entries are grey, else itself.

    All and not only those that occur, so that one index means the same in every mask of a data set.
    """
    entries = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    meaning = np.arange(256, dtype=np.uint8)
    if len(entries) and (entries == entries[:, :1]).all():
        meaning[: len(entries)] = entries[:, 0]
    return meaning


def with_channels(planes: np.ndarray, channels: int) -> np.ndarray:
    """Turn a photograph of 1 or 3 planes into `channels` planes: grey repeated, colour by Pillow's L.

    Raises:
        DataError: if `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise DataError(f"a photograph has 1 or 3 channels, {channels} were asked for; choose 1 or 3")
    if len(planes) == channels:
        return planes
    if channels == 3:
        return np.repeat(planes, 3, axis=0)
    return np.array(Image.fromarray(np.ascontiguousarray(np.moveaxis(planes, 0, 2))).convert("L"))[None]


def resize(planes: np.ndarray, size: tuple[int, int], *, nearest: bool = False) -> np.ndarray:
    """Resize every (H, W) plane of (P, H, W) uint8 or float32 to `size`, bilinear unless `nearest`."""
    if planes.shape[1:] == size:
        return planes
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    height, width = size
    resized = [np.asarray(Image.fromarray(plane).resize((width, height), how)) for plane in planes]
    stacked = np.stack(resized)
    return np.clip(stacked, 0, 1) if stacked.dtype == np.float32 else stacked
