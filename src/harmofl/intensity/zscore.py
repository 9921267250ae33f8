"""Z-scores: images with mean 0 and standard deviation 1 per channel."""

from typing import ClassVar

import torch
from torch import Tensor

from harmofl.spectral.image_norm import ImageNorm, Per, wide


class ZScoreNorm(ImageNorm):
    """Psi(x) = (x - m) / s, with the mean m and the standard deviation s of each channel of an image.

    A constant image becomes 0. With `per="site"` m and s are those of all images of the site, and
    Psi(x) = (x - m) s' / s + m' with the mean m' and deviation s' of all sites: one linear map of a site's
    intensities. The statistic is then the mean and the mean square, (C, 2).

    Args:
        per: "image" or "site".
        decay: v of the running statistic, see `ImageNorm`.
    """

    what: ClassVar[str] = "mean and deviation"

    def __init__(self, per: Per = "image", decay: float = 0.1) -> None:
        super().__init__(decay, per)

    @property
    def learns(self) -> bool:
        """True if the site's mean and deviation are learnt."""
        return self.per == "site"

    def statistic(self, x: Tensor) -> Tensor:
        """Return mean and mean square of each image, (N, C, 2); (N, 0) with `per="image"`."""
        return _moments(x) if self.per == "site" else super().statistic(x)

    def normalize(self, x: Tensor) -> Tensor:
        """Return Psi(x)."""
        if self.per == "image":
            mean, deviation = _scale(_moments(x), x)
            return ((wide(x) - mean) * _inverse(deviation)).to(x.dtype)
        self._check_channels(x, len(self.amplitude))
        mean, deviation = _scale(self.own_of(x)[None], x)
        new_mean, new_deviation = _scale(self.amplitude[None], x)
        return ((wide(x) - mean) * (new_deviation * _inverse(deviation)) + new_mean).to(x.dtype)


def _scale(moments: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation, 0 if it is rounding noise, in the shape of images like x."""
    mean, square = moments.reshape(*moments.shape[:2], *(1 for _ in x.shape[2:]), 2).unbind(-1)
    variance = square - mean**2
    noise = 8 * torch.finfo(square.dtype).eps * square
    return mean, torch.where(variance > noise, variance, 0).clamp_min(0).sqrt()


def _inverse(deviation: Tensor) -> Tensor:
    return torch.where(deviation > 0, 1 / deviation.clamp_min(torch.finfo(deviation.dtype).tiny), 0)


def _moments(x: Tensor) -> Tensor:
    pixels = wide(x).flatten(2)
    return torch.stack((pixels.mean(dim=-1), pixels.square().mean(dim=-1)), dim=-1)
