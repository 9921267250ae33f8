"""The header and the stored numbers of a photograph or mask, before they become brightness or labels."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Header:
    """The properties of a file that are known without decoding it.

    Args:
        size: (H, W).
        colour: whether it is in colour, not grey.
        kind: a description such as "RGB, 8 bit" or "volume, int16".
        alpha: whether it has an alpha channel.
        orientation: the EXIF orientation by which viewers turn or mirror it, 1 to 8; 1 if shown as stored.
    """

    size: tuple[int, int]
    colour: bool
    kind: str
    alpha: bool = False
    orientation: int = 1


@dataclass(frozen=True)
class Stored:
    """The numbers of one image.

    Args:
        samples: (H, W, 1 or 3) greys or colours, or indices of `palette`; whole numbers, or floats from a TIFF.
        bits: bits per sample; 2 ** bits - 1 is white.
        palette: (N, 3) uint8, or None.
        alpha: (H, W) whole numbers, largest where the image is opaque, or None.
        white_is_zero: whether greys run from white to black.
        orientation: as in `Header`.
        lossy: whether the compression is JPEG, which changes numbers.
    """

    samples: np.ndarray
    bits: int
    palette: np.ndarray | None = None
    alpha: np.ndarray | None = None
    white_is_zero: bool = False
    orientation: int = 1
    lossy: bool = False
