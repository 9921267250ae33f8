"""Z-scores: images with mean 0 and standard deviation 1 per channel."""

from typing import ClassVar

import torch
from torch import Tensor

from harmofl.spectral.image_norm import ImageNorm, Per, wide
from harmofl.utils.validators import check_within


class ZScoreNorm(ImageNorm):
    """Psi(x) = (x - m) / s, with the mean m and the standard deviation s of each channel.

    They are those of each image, or with `per="site"` of all images of the site: one linear map of the intensities. The
    statistic is then m and the mean square, (C, 2). A constant image becomes 0.

    Args:
        per: "image" or "site".
        decay: v of the running statistic, see `ImageNorm`.
    """

    what: ClassVar[str] = "mean and deviation"

    def __init__(self, per: Per = "image", decay: float = 0.1) -> None:
        super().__init__(decay, per)
        check_within("per", per, "image or site")

    @property
    def learns(self) -> bool:
        """True if the site's mean and deviation are learnt."""
        return self.per == "site"

    def statistic(self, x: Tensor) -> Tensor:
        """Return mean and mean square of each image, (N, C, 2); (N, 0) with `per="image"`."""
        return _moments(x) if self.per == "site" else super().statistic(x)

    def normalize(self, x: Tensor) -> Tensor:
        """Return Psi(x)."""
        if self.per == "site":
            self._check_channels(x, len(self.amplitude))
        moments = self.own_of(x)[None] if self.per == "site" else _moments(x)
        mean, square = moments.reshape(*moments.shape[:2], *(1 for _ in x.shape[2:]), 2).unbind(-1)
        variance = square - mean**2
        noise = 8 * torch.finfo(square.dtype).eps * square
        scale = torch.where(variance > noise, variance.clamp_min(torch.finfo(square.dtype).tiny).rsqrt(), 0)
        return ((wide(x) - mean) * scale).to(x.dtype)


def _moments(x: Tensor) -> Tensor:
    pixels = wide(x).flatten(2)
    return torch.stack((pixels.mean(dim=-1), pixels.square().mean(dim=-1)), dim=-1)
