"""Amplitude normalization in real arithmetic, for graphs without a Fourier transform.

The discrete Fourier transform is a product with a matrix of cosines and one of sines along each axis, constant for
images or volumes of one size.
"""

import math

import torch
from torch import Tensor, nn

from harmofl.spectral.amplitude import AmplitudeNorm, gain_of
from harmofl.spectral.image_norm import DARKEST
from harmofl.spectral.kernels import reach, waves, window
from harmofl.spectral.radial_profile import ProfileNorm, ring_of


class FixedAmplitude(nn.Module):
    """`AmplitudeNorm` or `ProfileNorm` in evaluation mode for images of one size, in real arithmetic.

    A bin that holds only rounding noise gets phase 0, as in `with_amplitude`. The noise differs between a fast
    transform and products with matrices, so the output for images with empty bins, such as constant ones, may differ;
    natural images have no empty bins.

    Args:
        layer: layer that has learnt its amplitude.
        size: (H, W) of the images, or (D, H, W) of the volumes.
    """

    zero: Tensor
    cos_x: Tensor
    sin_x: Tensor
    cos_back: Tensor
    sin_back: Tensor
    A: Tensor
    inside: Tensor
    gain: Tensor
    own: Tensor
    target: Tensor
    ring: Tensor
    twice: Tensor
    per_ring: Tensor

    def __init__(self, layer: AmplitudeNorm | ProfileNorm, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size, self.spectrum = torch.Size(size), (*size[:-1], size[-1] // 2 + 1)
        self.axes = tuple(range(-len(size), 0))
        self.strength = layer.strength
        self.noise = torch.finfo(torch.float32).eps * math.log2(max(self.size.numel(), 2))
        self._matrices()
        self.profile = isinstance(layer, ProfileNorm)
        self.density = layer.space == "density"
        own = layer.own if layer.per == "site" else torch.zeros(0)
        self.register_buffer("own", own.float().clone())
        if isinstance(layer, ProfileNorm):
            self._rings(layer)
        else:
            self._bins(layer)

    def _bins(self, layer: AmplitudeNorm) -> None:
        self.register_buffer("A", layer.amplitude.float().clone())
        like = torch.zeros(1, 1, *self.size)
        whole = torch.ones(self.spectrum, dtype=torch.bool)
        self.register_buffer("inside", whole if layer.band == 1 else window(reach(float(layer.band), like), like))
        if self.own.numel():
            self.register_buffer("gain", torch.where(self.inside, gain_of(self.A, self.own, self.strength), 1))

    def _rings(self, layer: ProfileNorm) -> None:
        """Prepare means over rings: the ring of each bin, and one over the number of its bins in the whole spectrum."""
        spacing = layer.spacing or (1.0,) * len(self.size)
        self.shared_gain = layer.shared_gain
        ring = ring_of(self.size, layer.radial_bins, torch.device("cpu"), spacing)
        weight = self.twice.expand(self.spectrum).flatten()
        count = torch.zeros(layer.radial_bins + 1).index_add(0, ring.flatten(), weight)
        self.register_buffer("target", layer.amplitude.float().clone())
        self.register_buffer("ring", ring.flatten(1))
        self.register_buffer("per_ring", 1 / count.clamp_min(1))

    def _matrices(self) -> None:
        *rest, W = self.size
        zero = torch.zeros(self.spectrum)
        zero.view(-1)[0] = self.size.numel()
        self.register_buffer("zero", zero)
        bins = torch.arange(W // 2 + 1)
        twice = torch.full((W // 2 + 1,), 2.0, dtype=torch.float64)  # of the whole spectrum, a bin stands for two,
        twice[0] = 1
        if W % 2 == 0:
            twice[-1] = 1  # but these are their own mirror images
        self.register_buffer("twice", twice.float())
        one = torch.ones(1, dtype=torch.float64)
        sides = [("x", bins, W, one), ("back", bins, W, twice / self.size.numel())]
        sides += [(str(axis), torch.arange(length), length, one) for axis, length in enumerate(rest)]
        for name, f, length, scale in sides:
            for wave, values in zip(("cos", "sin"), waves(f, length), strict=True):
                self.register_buffer(f"{wave}_{name}", (values * scale).float())

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized images, (N, C, H, W) or (N, C, D, H, W) float32."""
        x = -x.clamp_min(DARKEST).log() if self.density else x
        mean = x.mean(dim=self.axes, keepdim=True)  # separate, so that the other bins keep their precision
        centred = x - mean
        real, imaginary = centred @ self.cos_x, -(centred @ self.sin_x)  # (N, C, ..., W//2 + 1)
        for axis in range(len(self.size) - 2, -1, -1):
            real, imaginary = self._turned(real, imaginary, axis, 1)
        real = real + mean * self.zero
        real, imaginary = self._matched(real, imaginary) if self.profile else self._replaced(x, real, imaginary)
        for axis in range(len(self.size) - 1):
            real, imaginary = self._turned(real, imaginary, axis, -1)
        result = real @ self.cos_back.T - imaginary @ self.sin_back.T
        return (-result.clamp_min(0)).exp() if self.density else result

    def _turned(self, real: Tensor, imaginary: Tensor, axis: int, sign: int) -> tuple[Tensor, Tensor]:
        """Transform along one axis before the last, with sign -1 back; the matrices are symmetric."""
        c, s = getattr(self, f"cos_{axis}"), getattr(self, f"sin_{axis}") * sign
        after = self.spectrum[axis + 1 :]
        re, im = (part.flatten(axis + 3) for part in (real, imaginary))  # (N, C, ..., length, bins of later axes)
        return (c @ re + s @ im).unflatten(-1, after), (c @ im - s @ re).unflatten(-1, after)

    def _replaced(self, x: Tensor, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Apply Eq 4, see `harmofl.spectral.kernels`, or the filter of the site."""
        if self.own.numel():
            return real * self.gain, imaginary * self.gain
        tiny = torch.finfo(torch.float32).tiny
        norm = (x * x).sum(dim=self.axes, keepdim=True).sqrt()
        power = (real * real + imaginary * imaginary).clamp_min(tiny)
        silent = power <= (self.noise * norm).square().clamp_min(tiny)
        scale = self.A**self.strength * power ** (-self.strength / 2)
        new_real = torch.where(silent, scale * power.sqrt(), real * scale)
        new_imaginary = torch.where(silent, torch.zeros_like(imaginary), imaginary * scale)
        return torch.where(self.inside, new_real, real), torch.where(self.inside, new_imaginary, imaginary)

    def _matched(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the gain of `with_profile`."""
        own = self.own if self.own.numel() else self._profile((real * real + imaginary * imaginary).sqrt())
        noise = torch.finfo(torch.float32).eps * own.amax(dim=-1, keepdim=True)
        known = (own > noise) & (self.target > 0)
        gain = torch.where(known, self.target / own.clamp_min(torch.finfo(torch.float32).tiny), 1.0) ** self.strength
        by_bin = gain.index_select(-1, self.ring.flatten()).reshape(*gain.shape[:-1], *self.spectrum)
        return real * by_bin, imaginary * by_bin

    def _profile(self, amplitude: Tensor) -> Tensor:
        """Return the profile of each image; sums over rows, or planes, come first, as short sums keep precision."""
        root = self.size.numel() ** 0.5
        amounts = (amplitude * self.twice).flatten(3)  # (N, C, H, bins of a row)
        sums = amounts.new_zeros(*amounts.shape[:3], len(self.per_ring))
        own = sums.scatter_add(-1, self.ring.expand_as(amounts), amounts).sum(dim=2) * self.per_ring / root
        own = torch.cat((own[..., :1] / root, own[..., 1:]), dim=-1)
        return own.mean(dim=1, keepdim=True) if self.shared_gain else own
