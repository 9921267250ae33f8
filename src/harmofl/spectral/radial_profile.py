"""Profile normalization: match the amplitude of images at each radius of the spectrum, not at each frequency.

A variant of HarmoFL's amplitude normalization (Jiang, Wang, Dou, AAAI 2022, Eq 3-4). Replacing the whole amplitude
also removes image content that it encodes; its average over all directions encodes less content and as much of
scanner, stain and focus, takes a few dozen numbers per channel, and fits images of any size.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from harmofl.errors import ShapeError
from harmofl.spectral.image_norm import ImageNorm, Per, Space, wide
from harmofl.spectral.kernels import axes_of, frequencies
from harmofl.utils.validators import check_within

RADIUS = 0.5**0.5  # the largest radius of an image's spectrum, in cycles per pixel


def profile(x: Tensor, radial_bins: int, spacing: Sequence[float] = ()) -> Tensor:
    """Return R(x): the amplitude at zero frequency, and its average over each ring around it.

    Args:
        x: (N, C, H, W) real images, or (N, C, D, H, W) volumes, whose rings are shells.
        radial_bins: number of rings of equal width up to the largest radius, at least 1.
        spacing: distance of two pixels along each spatial axis, such as (3.0, 0.5, 0.5) in mm; the radius is then in
            cycles per mm. Empty: in cycles per pixel.

    Returns:
        (N, C, 1 + radial_bins): |mean level|, then mean |F| / sqrt(H W) per ring, a scale that does not depend on the
        image size; 0 for a ring without a frequency (which leaves amplitudes there unchanged).

    Raises:
        ShapeError: if `spacing` does not have a positive number for each spatial axis.
    """
    with torch.autocast(x.device.type, enabled=False):
        return _profile_of(torch.fft.rfftn(wide(x), dim=axes_of(x)), x.shape[2:], radial_bins, _spacing(spacing, x))


def _spacing(spacing: Sequence[float], x: Tensor) -> tuple[float, ...]:
    axes = x.dim() - 2
    if spacing and (len(spacing) != axes or not all(0 < length < math.inf for length in spacing)):
        raise ShapeError(f"spacing must be {axes} positive numbers, one per spatial axis, got {tuple(spacing)}")
    return tuple(map(float, spacing)) or (1.0,) * axes


def _profile_of(F: Tensor, shape: torch.Size, radial_bins: int, spacing: tuple[float, ...]) -> Tensor:
    means = averaging(shape, radial_bins, F.device, F.real.dtype, spacing)
    R: Tensor = F.abs().flatten(2) @ means / shape.numel() ** 0.5
    R[..., 0] /= shape.numel() ** 0.5
    return R


def with_profile(
    x: Tensor,
    target: Tensor,
    own: Tensor | None = None,
    strength: float = 1.0,
    shared_gain: bool = False,
    spacing: Sequence[float] = (),
) -> Tensor:
    """Return Psi(x) = F^-1(gain F(x)), gain = (target / own)^strength at the radius of each frequency.

    Phases and the relative amplitudes within a ring do not change.

    Args:
        x: (N, C, H, W) floating-point images, or (N, C, D, H, W) volumes; not modified.
        target: (C, 1 + radial_bins), the profile to match.
        own: (C, 1 + radial_bins), the mean profile of the images, which gives one gain for all; None uses each
            image's own.
        strength: in [0, 1]; 0 leaves the images unchanged.
        shared_gain: use the mean of the channels' profiles where `own` is None.
        spacing: that of the profiles, see `profile`.

    Returns:
        Images of the shape and dtype of x; values may leave [0, 1].
    """
    shape, radial_bins, axes, lengths = x.shape[2:], target.shape[-1] - 1, axes_of(x), _spacing(spacing, x)
    F = torch.fft.rfftn(wide(x), dim=axes)
    if own is None:
        with torch.autocast(x.device.type, enabled=False):
            own = _profile_of(F.detach(), shape, radial_bins, lengths)
        own = own.mean(dim=1, keepdim=True) if shared_gain else own
    noise = torch.finfo(own.dtype).eps * own.amax(dim=-1, keepdim=True)
    known = (own > noise) & (target > 0)
    gain = torch.where(known, target / own.clamp_min(torch.finfo(own.dtype).tiny), 1) ** strength
    result: Tensor = torch.fft.irfftn(F * gain[..., ring_of(shape, radial_bins, x.device, lengths)], s=shape, dim=axes)
    return result.to(x.dtype)


@lru_cache(maxsize=8)
def ring_of(
    shape: torch.Size, radial_bins: int, device: torch.device, spacing: tuple[float, ...] = (1.0, 1.0)
) -> Tensor:
    """Return the ring of each bin of the half spectrum, (..., H, W//2 + 1): 0 at zero frequency, else from 1."""
    along = [f / length for f, length in zip(frequencies(shape, device), spacing, strict=True)]
    radius = sum((f**2 for f in along[1:]), along[0] ** 2).sqrt()
    largest = math.sqrt(sum(0.25 / length**2 for length in spacing))
    ring = 1 + (radius / largest * radial_bins).floor().long().clamp_max(radial_bins - 1)
    return torch.where(radius > 0, ring, 0)


@lru_cache(maxsize=8)
def averaging(
    shape: torch.Size,
    radial_bins: int,
    device: torch.device,
    dtype: torch.dtype,
    spacing: tuple[float, ...] = (1.0, 1.0),
) -> Tensor:
    """Return the matrix (H (W//2 + 1), 1 + radial_bins) from a half spectrum to the means over rings of the whole."""
    *rest, W = shape
    half = torch.full((W // 2 + 1,), 2.0, device=device)
    half[0] = 1
    if W % 2 == 0:
        half[-1] = 1  # the highest frequency is its own mirror image
    ring = ring_of(shape, radial_bins, device, spacing).flatten()
    member = torch.nn.functional.one_hot(ring, radial_bins + 1).double()
    weight = member * half.double().repeat(math.prod(rest))[:, None]
    return (weight / weight.sum(dim=0).clamp_min(1)).to(dtype)


class ProfileNorm(ImageNorm):
    """`AmplitudeNorm` with a radial profile instead of the whole amplitude.

    R_k = (1 - v) R_{k-1} + v mean_m R(x_m), bias corrected                          (Eq 3 with R for A)
    Psi(x) = F^-1(gain F(x)), gain = (R_k / R(x))^strength

    The state `amplitude` is R, (C, 1 + radial_bins). With `per="site"` the gain is (R / R_i)^strength instead, with R_i
    the site's own profile: one filter for all its images, see `ImageNorm`.

    Args:
        radial_bins: number of bins of the radius, at least 1; 1 leaves two numbers per channel, the level and the
            contrast.
        per: "image" or "site".
        decay: v, see `ImageNorm`.
        strength: in [0, 1]; 0 leaves images unchanged.
        shared_gain: one gain for all channels, from the mean of their profiles, which keeps the colours.
        spacing: of all images, see `profile`.
        space: "intensity", or "density" to normalize the optical density, see `ImageNorm`.

    Raises:
        ConfigError: if an argument is out of range.
    """

    what: ClassVar[str] = "radial profile"
    records = True

    def __init__(
        self,
        radial_bins: int = 32,
        per: Per = "image",
        decay: float = 0.1,
        strength: float = 1.0,
        shared_gain: bool = False,
        spacing: Sequence[float] = (),
        space: Space = "intensity",
    ) -> None:
        super().__init__(decay, per, space)
        check_within("strength", strength, "[0, 1]")
        check_within("radial_bins", radial_bins, "whole [1, inf)")
        self.radial_bins, self.strength, self.shared_gain = radial_bins, strength, shared_gain
        self.spacing = tuple(spacing)
        if per == "image":  # in the state, since it was in that of earlier versions
            self.register_buffer("own", torch.zeros(0))

    @property
    def is_idle(self) -> bool:
        """True if images never change."""
        return self.strength == 0

    def statistic(self, x: Tensor) -> Tensor:
        """Return the profile of each image, (N, C, 1 + radial_bins)."""
        R = profile(x, self.radial_bins, self.spacing)
        return R.mean(dim=1, keepdim=True).expand_as(R) if self.shared_gain else R

    def normalize(self, x: Tensor) -> Tensor:
        """Return Psi(x)."""
        self._check_channels(x, len(self.amplitude))
        if self.strength == 0:
            return x
        own = self.own_of(x) if self.per == "site" else None
        return with_profile(x, self.amplitude, own, self.strength, self.shared_gain, self.spacing)
