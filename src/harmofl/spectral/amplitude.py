"""Amplitude normalization: give all images one amplitude spectrum and keep each image's phase.

Jiang, Wang, Dou, "HarmoFL", AAAI 2022, Eq 2-4. https://arxiv.org/abs/2112.10775

The spectrum of a real image is Hermitian, so this module uses its half, F of shape (..., H, W//2 + 1). Volumes,
(..., D, H, W), have the half (..., D, H, W//2 + 1) in the same way.
"""

from typing import Literal

import torch
from torch import Tensor

from harmofl.errors import ShapeError
from harmofl.spectral.image_norm import ImageNorm, Per, Space, wide
from harmofl.spectral.kernels import axes_of, cheapest, reach, window
from harmofl.utils.validators import check_within

Band = float | Literal["off"]


def amplitude(x: Tensor, axes: int = 2) -> Tensor:
    """Return A(x) = |F(x)|, the amplitude spectrum per channel (Eq 2).

    Args:
        x: (..., H, W) real images, or (..., D, H, W) volumes.
        axes: number of spatial axes, the last ones: 2 for images, 3 for volumes.

    Returns:
        The half spectrum (..., H, W//2 + 1) or (..., D, H, W//2 + 1), at least float32, >= 0. Its bin of frequency zero
        is |sum of the pixels|.
    """
    spectrum: Tensor = torch.fft.rfftn(wide(x), dim=tuple(range(-axes, 0)))
    return spectrum.abs()


def with_amplitude(x: Tensor, A: Tensor, band: Band = 1.0, strength: float = 1.0) -> Tensor:
    """Return Psi(x) = F^-1(A, P(x)): the images with the amplitude A and their own phase P(x) (Eq 4).

    With strength s < 1 the new amplitude is A^s |F(x)|^(1-s); s = 0 leaves the images unchanged.
    A bin too small to have a phase (rounding noise, as in a constant image) gets phase 0, as atan2(0, 0) does.

    Args:
        x: (N, C, H, W) images or (N, C, D, H, W) volumes; not modified.
        A: (C, H, W) amplitude of real images, or its half spectrum (C, H, W//2 + 1); of volumes (C, D, H, W) or
            (C, D, H, W//2 + 1).
        band: 1 replaces the whole amplitude (the paper); 0 < L < 1 the frequencies of at most
            b = floor(L min(H, W)) cycles per image along each axis, floor(L min(D, H, W)) in volumes; 0 only the mean
            level (the released code); "off" nothing.
        strength: s, in [0, 1]; 1 in the paper.

    Returns:
        Images of the shape and dtype of x (float32 if x is an integer tensor); values may leave [0, 1].

    Raises:
        ShapeError: if A does not fit x.
        ConfigError: if `band` is neither "off" nor a number in [0, 1], or `strength` is not in [0, 1].
    """
    check_within("band", band, "[0, 1] or off")
    check_within("strength", strength, "[0, 1]")
    if band == "off" or strength == 0:
        return x
    A = _half(A, x)
    images = x.reshape(-1, *x.shape[-A.dim() :])
    with torch.autocast(x.device.type, enabled=False):
        result = cheapest(images, A, float(band), strength)(wide(images)).reshape(x.shape)
    return result.to(x.dtype) if x.is_floating_point() else result


def filtered(x: Tensor, A: Tensor, own: Tensor, band: Band = 1.0, strength: float = 1.0) -> Tensor:
    """Return F^-1((A / own)^strength F(x)): one linear filter for all images, which keeps their relative content.

    Args:
        x: (N, C, H, W) images or (N, C, D, H, W) volumes; not modified.
        A: the amplitude to reach on average, a half spectrum as in `with_amplitude`.
        own: the mean amplitude of the images, of the same shape; where it is rounding noise the gain is 1.
        band: frequencies to filter, see `with_amplitude`.
        strength: in [0, 1]; 0 leaves the images unchanged.

    Returns:
        Images of the shape and dtype of x; values may leave [0, 1].

    Raises:
        ShapeError: if A or own does not fit x.
    """
    if band == "off" or strength == 0:
        return x
    with torch.autocast(x.device.type, enabled=False):
        gain = gain_of(_half(A, x), _half(own, x), strength)
        inside = None if band == 1 else window(reach(float(band), x), x)
        gain = gain if inside is None else torch.where(inside, gain, 1)
        result: Tensor = torch.fft.irfftn(
            torch.fft.rfftn(wide(x), dim=axes_of(x)) * gain, s=x.shape[2:], dim=axes_of(x)
        )
    return result.to(x.dtype)


def gain_of(A: Tensor, own: Tensor, strength: float) -> Tensor:
    """Return (A / own)^strength, and 1 where own is rounding noise."""
    known = own > torch.finfo(own.dtype).eps * own.amax()
    return torch.where(known, A / own.clamp_min(torch.finfo(own.dtype).tiny), 1) ** strength


def _half(A: Tensor, x: Tensor) -> Tensor:
    """Return the half spectrum of A; raise ShapeError if A does not fit x."""
    axes = 4 if A.dim() == 4 and x.dim() > 4 else 3
    whole, W = tuple(x.shape[-axes:]), x.shape[-1]
    half = (*whole[:-1], W // 2 + 1)
    if tuple(A.shape) not in (whole, half):
        raise ShapeError(
            f"the amplitude must be {whole} or its half {half} for images of {'x'.join(map(str, whole))}, got "
            f"{tuple(A.shape)}; resize the images to the size the amplitude was learnt on"
        )
    return A[..., : W // 2 + 1].to(device=x.device, dtype=wide(x).dtype)


class AmplitudeNorm(ImageNorm):
    """First layer of a network: learns the running amplitude of the images and applies it to each of them.

    A_k = (1 - v) A_{k-1} + v mean_m A(x_m), A_0 = 0, divided by 1 - (1 - v)^k        (Eq 3, bias corrected)
    Psi(x_m) = F^-1(A_k, P(x_m))                                                      (Eq 4)

    The state `amplitude` is A, a half spectrum (C, H, W//2 + 1), or (C, D, H, W//2 + 1) of volumes. See `ImageNorm`
    for when A is learnt. With `per="site"`, a variant of this package, the images of a site get the filter
    (A / A_i)^strength instead, A_i the site's own amplitude, see `filtered`.

    Args:
        band: frequencies to normalize, see `with_amplitude`.
        decay: v, the weight of the newest batch, in [0, 1]; 0.1 in the paper. With 0 the amplitude of the first batch
            is kept, as in the released code, which truncates 0.1 to 0.
        strength: degree of the replacement, see `with_amplitude`.
        per: "image", or "site" for one filter per site.
        space: "intensity", or "density" to normalize the optical density, see `ImageNorm`.

    Raises:
        ConfigError: if an argument is out of range.
        ShapeError: when called with images of another size than the amplitude was learnt on.
    """

    records = True

    def __init__(
        self,
        band: Band = 1.0,
        decay: float = 0.1,
        strength: float = 1.0,
        per: Per = "image",
        space: Space = "intensity",
    ) -> None:
        super().__init__(decay, per, space)
        check_within("band", band, "[0, 1] or off")
        check_within("strength", strength, "[0, 1]")
        self.band, self.strength = band, strength

    @property
    def is_idle(self) -> bool:
        """True if images never change."""
        return self.band == "off" or self.strength == 0

    @property
    def learns(self) -> bool:
        """False if the layer is off."""
        return self.band != "off"

    def statistic(self, x: Tensor) -> Tensor:
        """Return the amplitude of each image, see `amplitude`."""
        if self.count:
            self._check_size(x)
        else:
            self.width.fill_(x.shape[-1])
        return amplitude(x, x.dim() - 2)

    def normalize(self, x: Tensor) -> Tensor:
        """Return Psi(x)."""
        self._check_size(x)
        if self.per == "site":
            return filtered(x, self.amplitude, self.own_of(x), self.band, self.strength)
        return with_amplitude(x, self.amplitude, self.band, self.strength)

    def _check_size(self, x: Tensor) -> None:
        learnt = (*self.amplitude.shape[:-1], int(self.width))
        if tuple(x.shape[1:]) != learnt:
            axes = "C x H x W" if len(learnt) == 3 else "C x D x H x W"
            raise ShapeError(
                f"images must be {'x'.join(map(str, learnt))} ({axes}) as those the amplitude was learnt on, got "
                f"{'x'.join(map(str, x.shape[1:]))}; resize the images, or start with a new AmplitudeNorm"
            )

    def extra_repr(self) -> str:
        """Return the text that `print(model)` shows."""
        return f"band={self.band}, decay={self.decay}, size={tuple(self.amplitude.shape)}, frozen={bool(self.frozen)}"
