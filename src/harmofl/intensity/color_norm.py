"""Base class of normalizers for color images."""

from typing import ClassVar

from torch import Tensor

from harmofl.errors import NotColorError
from harmofl.spectral.image_norm import ImageNorm


class ColorNorm(ImageNorm):
    """Normalizer of the images (N, 3, H, W) that have colors, each by its own statistic.

    Args:
        decay: v of the running statistic, see `ImageNorm`.
    """

    bounded: ClassVar[bool] = False

    def __init__(self, decay: float = 0.1) -> None:
        super().__init__(decay)


def check_rgb(x: Tensor, part: str) -> None:
    """Raise NotColorError unless images are (N, 3, H, W)."""
    if x.dim() != 4 or x.shape[1] != 3:
        raise NotColorError(
            f"{part} is for color images, (N, 3, H, W), got {tuple(x.shape)}; choose another normalizer"
        )
