"""What one photograph or mask holds, before its numbers are taken for brightness or labels."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Header:
    """What a file says of itself without being decoded.

    Args:
        size: (H, W).
        colour: or grey.
        kind: such as "RGB, 8 bit" or "volume, int16".
        alpha: whether it has an alpha channel.
        orientation: how a viewer would turn or mirror it, 1 to 8 (EXIF); 1 if as stored.
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
        samples: (H, W, 1 or 3) greys or colours, or indices of `palette`; whole numbers, or floats of TIFF.
        bits: of a sample; 2 ** bits - 1 is white.
        palette: (N, 3) uint8, or None.
        alpha: (H, W) whole numbers, largest where the image is opaque, or None.
        white_is_zero: whether greys run from white to black.
        orientation: as of `Header`.
        lossy: whether it is a JPEG, which changes numbers.
    """

    samples: np.ndarray
    bits: int
    palette: np.ndarray | None = None
    alpha: np.ndarray | None = None
    white_is_zero: bool = False
    orientation: int = 1
    lossy: bool = False
