"""Stain normalization: give images of two stains the same stain colors and strengths.

Macenko et al., "A Method for Normalizing Histology Slides for Quantitative Analysis", ISBI 2009.
"""

from typing import ClassVar

import torch
from torch import Tensor

from harmofl.intensity.color_norm import ColorNorm, check_rgb
from harmofl.intensity.landmarks import quantiles
from harmofl.spectral.image_norm import wide

WHITE = 240 / 255
"""Intensity of the light source."""
CLEAR = 0.15
"""Optical density below which a pixel has no stain."""
EXTREMES = 0.01, 0.99
"""Quantiles of the angle that give the two stains, and of the concentration that give its maximum."""
FEWEST = 16
"""Stained pixels that an image must have."""
PUBLISHED = ((0.5626, 0.2159), (0.7201, 0.8012), (0.4062, 0.5581), (1.9705, 1.0308))
"""V and C of a typical slide, from the published implementation; used until an image with stains was seen."""


def density(x: Tensor) -> Tensor:
    """Return the optical density of images (N, 3, H, W) in [0, 1], as (N, 3, H W)."""
    return -((x.clamp(0, 1) + 1 / 255) / WHITE).log().flatten(2)


def stains(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the stain colors and the maximal concentrations of each image.

    Args:
        x: (N, 3, H, W) in [0, 1].

    Returns:
        V (N, 3, 2), the optical density of hematoxylin and eosin, of norm 1, and C (N, 2), the 99 % quantile of their
        concentrations; NaN for an image with fewer than 16 stained pixels, or of one color.
    """
    OD = density(x)
    stained = (OD >= CLEAR).all(dim=1)  # (N, H W)
    plane = _plane(OD, stained)
    first, second = (plane.mT @ OD).unbind(dim=1)
    angle = torch.where(stained, torch.atan2(second, first), torch.inf)
    low, high = quantiles(angle, OD.new_tensor(EXTREMES), stained.sum(dim=-1)).nan_to_num(posinf=0).unbind(dim=-1)
    ends = [plane @ torch.stack((end.cos(), end.sin()), dim=-1)[..., None] for end in (low, high)]
    one, other = (end[..., 0] for end in ends)
    redder = (one[:, 0] > other[:, 0])[:, None]  # hematoxylin absorbs more red than eosin
    V = torch.stack((torch.where(redder, one, other), torch.where(redder, other, one)), dim=-1)
    known = (stained.sum(dim=-1) >= FEWEST) & (high - low > 1e-3)
    C = quantiles(concentrations(OD, V), OD.new_tensor(EXTREMES[1:]))[..., 0]
    known &= (C > 0).all(dim=-1)
    return V.where(known[:, None, None], torch.nan), C.where(known[:, None], torch.nan)


def concentrations(OD: Tensor, V: Tensor) -> Tensor:
    """Return the least-squares solution C of V C = OD, (N, 2, H W)."""
    gram = V.mT @ V
    a, b, d = gram[:, 0, 0], gram[:, 0, 1], gram[:, 1, 1]
    determinant = (a * d - b * b).clamp_min(torch.finfo(OD.dtype).tiny)
    inverse = torch.stack((torch.stack((d, -b), dim=-1), torch.stack((-b, a), dim=-1)), dim=-2)
    solved: Tensor = inverse / determinant[:, None, None] @ (V.mT @ OD)
    return solved


def _plane(OD: Tensor, stained: Tensor) -> Tensor:
    """Return the two main axes (N, 3, 2) of the stained pixels' densities, the first one with a positive sum."""
    weight = stained.to(OD)[:, None]
    total = weight.sum(dim=-1, keepdim=True).clamp_min(1)
    centred = (OD - (OD * weight).sum(dim=-1, keepdim=True) / total) * weight
    axes = torch.linalg.eigh(centred @ centred.mT / total).eigenvectors[..., [2, 1]]
    sign = torch.where(axes.sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
    signed: Tensor = axes * sign
    return signed


class MacenkoNorm(ColorNorm):
    """Psi(x) = white exp(-V' (C' / C) c), c the stain concentrations of x under its own stain colors V.

    V (3, 2) and C, the 99 % quantile of c, are those of each image; V' and C' are means over the images of all sites.
    The statistic is V and C, (4, 2): a site sends eight numbers, once. An image without stains, such as an empty one,
    does not change and does not count in a site's mean; a site without any stained image sends published values.

    Args:
        decay: v of the running statistic, see `ImageNorm`.

    Raises:
        NotColorError: when called with images that do not have three channels.
    """

    what: ClassVar[str] = "stain colors and strengths"

    def statistic(self, x: Tensor) -> Tensor:
        """Return V and C of each image, (N, 4, 2); NaN for an image without stains."""
        check_rgb(x, "+macenko")
        V, C = stains(wide(x))
        return torch.cat((V, C[:, None]), dim=1)

    def mean_statistic(self, x: Tensor) -> Tensor:
        """Return the mean over the images with stains; without any, the statistic that is in use."""
        found = self.statistic(x)
        used = self.amplitude.to(found) if self.count else found.new_tensor(PUBLISHED)
        return torch.where(found.isnan().all(dim=0), used, found.nanmean(dim=0))

    def normalize(self, x: Tensor) -> Tensor:
        """Return Psi(x), in [0, 1]; V and C have no gradient."""
        images, target = wide(x), self.amplitude.to(x)
        own = self.statistic(x.detach())
        known = ~own.isnan().any(dim=1, keepdim=True).any(dim=2, keepdim=True)
        own = torch.where(known, own, own.new_tensor(PUBLISHED))
        c = concentrations(density(images), own[:, :3]) * (target[3] / own[:, 3])[..., None]
        result = (WHITE * (-target[:3] @ c).exp()).clamp(0, 1)
        return torch.where(known, result, images.flatten(2)).view_as(x).to(x.dtype)
