"""Reading of masks with greys, palettes, colours or alpha channels as one whole number per pixel.

Colours are numbered as in `mask_numbers`. Palettes are read by their colours, since their order depends on the program.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harmofl.data.decoding import volumes
from harmofl.data.decoding.images import palette_colours, reading
from harmofl.data.decoding.photographs import read_stored
from harmofl.data.decoding.stored_pixels import Stored
from harmofl.data.layout.file_names import is_volume
from harmofl.data.mask_numbers import COLOUR, named
from harmofl.errors import DataError


@dataclass(frozen=True)
class Mask:
    """A mask's numbers and the properties of its file.

    Args:
        numbers: (1, H, W), or (S, H, W) for a volume.
        palette: the numbers of its palette's colours in their order, if it has one.
        lossy: whether its compression may have changed the numbers.
        orientation: orientation of the file, see `stored.Header`.
        alpha: whether its alpha channel changed the numbers.
    """

    numbers: np.ndarray
    palette: tuple[int, ...] = ()
    lossy: bool = False
    orientation: int = 1
    alpha: bool = False


def read_numbers(path: Path) -> Mask:
    """Read a mask.

    Raises:
        DataError: if the file is missing or damaged, holds numbers that are not whole, or contradicts itself.
    """
    with reading(path):
        if is_volume(path.name):
            return Mask(volumes.read_label_volume(path))
        image = read_stored(path)
        palette: tuple[int, ...] = ()
        if image.palette is not None and image.samples.max() < len(image.palette):
            numbers, palette = _by_colours(image)
        elif image.samples.shape[2] == 3:
            numbers = _numbers(_eight_bit(image))
        else:
            numbers = _greys(image)
        plain = numbers
        if image.alpha is not None:
            numbers = _opaque(plain, image.alpha)
        return Mask(numbers[None], palette, image.lossy, image.orientation, bool((numbers != plain).any()))


def _by_colours(image: Stored) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the numbers of an image with a palette, and the numbers of the palette's colours in their order."""
    numbers = _numbers(palette_colours(image))
    if len(np.unique(numbers)) < len(np.unique(image.samples)):
        raise DataError("its palette must have a different colour for each class; save it as grey")
    assert image.palette is not None
    return numbers, tuple(dict.fromkeys(_numbers(image.palette).tolist()))


def _numbers(colours: np.ndarray) -> np.ndarray:
    """Return the numbers of (..., 3) uint8 colours."""
    grey = (colours == colours[..., :1]).all(axis=-1)
    if grey.all():
        return np.asarray(colours[..., 0])
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return np.asarray(np.where(grey, red, COLOUR + (red << 16) + (green << 8) + blue))


def _eight_bit(image: Stored) -> np.ndarray:
    if image.bits <= 8:
        return image.samples.astype(np.uint8)
    if (image.samples == image.samples[..., :1]).all() or not (image.samples % 257).any():
        return image.samples if (image.samples % 257).any() else (image.samples // 257).astype(np.uint8)
    raise DataError("colours of a mask must have 8 bits; convert it")


def _greys(image: Stored) -> np.ndarray:
    greys: np.ndarray = image.samples[..., 0]
    if greys.dtype.kind == "f":
        whole: np.ndarray = np.rint(greys).astype(np.int32)
        if (odd := greys[whole != greys]).size:
            raise DataError(f"a mask must hold whole numbers, got {odd[0]:.9g}; convert it")
        return whole
    if image.white_is_zero and image.bits > 1:
        raise DataError("a mask must not be stored with 0 as white; save it with 0 as black")
    return 1 - greys if image.white_is_zero else greys


def _opaque(numbers: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return the numbers with 0 where the mask is transparent; in an all-black mask, opaque pixels become 255.

    Raises:
        DataError: if pixels are half transparent, or the alpha channel and the colours are different masks.
    """
    levels = np.unique(alpha)
    if len(levels) == 1:
        hidden = levels[0] == 0 and (numbers == numbers.flat[0]).all()
        return np.zeros_like(numbers) if hidden else numbers
    if len(levels) > 2 or levels[0] != 0:
        got = f"{len(levels)} levels from {levels[0]} to {levels[-1]}"
        raise DataError(f"its alpha channel must be transparent or opaque, got {got}; save it without smoothing")
    opaque = alpha > 0
    shown, hidden = set(np.unique(numbers[opaque]).tolist()), set(np.unique(numbers[~opaque]).tolist())
    if shown == hidden == {0}:
        return np.where(opaque, 255, 0).astype(np.uint8)
    if shown == {0} or len(hidden) > 1 or (len(shown) > 1 and hidden & shown - {0}):
        raise DataError("its alpha channel and its colours are different masks; save the right one as grey")
    return np.where(opaque, numbers, 0)


def to_labels(mask: np.ndarray, count: int, values: tuple[int, ...] = ()) -> np.ndarray:
    """Check a mask's numbers and return them as uint8 labels 0..count-1.

    Args:
        mask: the numbers.
        count: the number of classes.
        values: the numbers of the classes in their order; by default 0..count-1, or 0 and 255 for two classes.

    Raises:
        DataError: naming the first number that is not allowed.
    """
    found = np.unique(mask)
    if not values and found[-1] >= COLOUR:
        got = f"got colours ({named(int(found[-1]))})"
        fix = "convert it, or give the colours of the classes as values in federation.toml"
        raise DataError(f"a mask must be grey with one number per pixel, {got}; {fix}")
    known = values or ((0, 255) if count == 2 and found[-1] == 255 else tuple(range(count)))
    if odd := [value for value in found.tolist() if value not in known]:
        names = "0 and 1 (or 0 and 255)" if count == 2 else f"0..{count - 1}"
        wanted = ", ".join(map(named, values)) if values else names
        raise DataError(f"labels must be {wanted}, got {named(odd[0])}; correct the mask or the list of classes")
    if known == tuple(range(count)):
        return mask.astype(np.uint8)
    labels = np.zeros(mask.shape, dtype=np.uint8)
    for label, value in enumerate(known):
        labels[mask == value] = label
    return labels
