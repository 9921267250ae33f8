"""Augmentations that stand in the place of a normalizer: random stains, random amplitudes."""

from typing import ClassVar

import torch
from torch import Tensor

from harmofl.intensity.color_norm import check_rgb
from harmofl.spectral.image_norm import ImageNorm, wide
from harmofl.spectral.kernels import axes_of
from harmofl.spectral.radial_profile import ring_of
from harmofl.utils.validators import check_within

_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density of hematoxylin, eosin and DAB: Ruifrok, Johnston, Analytical and Quantitative Cytology 23, 2001."""
DARK = 1e-6


class _Jitter(ImageNorm):
    """Base class of layers that change training images at random, and others not at all; nothing is learnt."""

    what: ClassVar[str] = ""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        check_within("sigma", sigma, "[0, inf)")
        self.sigma = sigma

    def normalize(self, x: Tensor) -> Tensor:
        """Return images that are changed at random in training."""
        return self.changed(wide(x)).to(x.dtype) if self.training and self.sigma else x

    def changed(self, x: Tensor) -> Tensor:
        """Return the images with random changes, drawn from torch's generator."""
        raise NotImplementedError


class StainJitter(_Jitter):
    """c <- a c + b for the concentration c of each stain, a ~ U(1 - sigma, 1 + sigma), b ~ U(-sigma, sigma).

    Tellez et al., "Whole-Slide Mitosis Detection in H&E Breast Histology Using PHH3 as a Reference", IEEE TMI 37, 2018.
    Concentrations are in units of the largest density, -log(1e-6).

    Args:
        sigma: width of the changes, at least 0; 0.05 is usual.

    Raises:
        NotColorError: when called with images that do not have three channels.
    """

    def __init__(self, sigma: float = 0.05) -> None:
        super().__init__(sigma)

    def changed(self, x: Tensor) -> Tensor:
        """Return images (N, 3, H, W) in [0, 1] with changed stains."""
        check_rgb(x, "+stain-jitter")
        mixing = x.new_tensor(_STAINS)
        scale = torch.tensor(DARK).log().to(x)
        c = torch.einsum("ji,njhw->nihw", torch.linalg.inv(mixing), x.clamp_min(DARK).log() / scale)
        a, b = (self.sigma * (2 * torch.rand(2, len(x), 3, 1, 1, device=x.device, dtype=x.dtype) - 1)).unbind()
        return (torch.einsum("ji,njhw->nihw", mixing, c * (1 + a) + b) * scale).exp().clamp(0, 1)


class AmplitudeJitter(_Jitter):
    """F(x) <- exp(sigma n) F(x), n ~ N(0, 1) for each image, channel and ring of the spectrum.

    A variant of this package, the counterpart of `ProfileNorm`: instead of one profile for all images, any profile.
    Phases do not change.

    Args:
        radial_bins: number of rings, at least 1, beside the mean level.
        sigma: deviation of the logarithm of the gain, at least 0.
    """

    def __init__(self, radial_bins: int = 8, sigma: float = 0.2) -> None:
        super().__init__(sigma)
        check_within("radial_bins", radial_bins, "whole [1, inf)")
        self.radial_bins = radial_bins

    def changed(self, x: Tensor) -> Tensor:
        """Return images or volumes with random amplitudes; values may leave [0, 1]."""
        gain = (self.sigma * torch.randn(*x.shape[:2], 1 + self.radial_bins, device=x.device, dtype=x.dtype)).exp()
        with torch.autocast(x.device.type, enabled=False):
            ring = ring_of(x.shape[2:], self.radial_bins, x.device, (1.0,) * (x.dim() - 2))
            result: Tensor = torch.fft.irfftn(
                torch.fft.rfftn(x, dim=axes_of(x)) * gain[..., ring], s=x.shape[2:], dim=axes_of(x)
            )
        return result
