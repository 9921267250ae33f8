"""Amplitude normalization in real arithmetic, for graphs without a Fourier transform.

The discrete Fourier transform is a product with matrices of cosines and sines, constant for images of one size.
"""

import math

import torch
from torch import Tensor, nn

from harmofl.spectral.amplitude import AmplitudeNorm, gain_of
from harmofl.spectral.image_norm import DARKEST
from harmofl.spectral.kernels import reach, waves, window
from harmofl.spectral.radial_profile import ProfileNorm, averaging, ring_of


class FixedAmplitude(nn.Module):
    """`AmplitudeNorm` or `ProfileNorm` in evaluation mode for images of one size, in real arithmetic.

    A bin that holds only rounding noise gets phase 0, as in `with_amplitude`. The noise differs between a fast
    transform and products with matrices, so the output for images with empty bins, such as constant ones, may differ;
    natural images have no empty bins.

    Args:
        layer: layer that has learnt its amplitude.
        size: (H, W) of the images.
    """

    zero: Tensor
    cos_x: Tensor
    sin_x: Tensor
    cos_y: Tensor
    sin_y: Tensor
    cos_back: Tensor
    sin_back: Tensor
    A: Tensor
    inside: Tensor
    gain: Tensor
    own: Tensor
    target: Tensor
    average: Tensor
    spread: Tensor

    def __init__(self, layer: AmplitudeNorm | ProfileNorm, size: tuple[int, int]) -> None:
        super().__init__()
        H, W = size
        self.strength, self.noise = layer.strength, torch.finfo(torch.float32).eps * math.log2(max(H * W, 2))
        self._matrices(H, W)
        self.profile = isinstance(layer, ProfileNorm)
        self.density = layer.space == "density"
        own = layer.own if layer.per == "site" else torch.zeros(0)
        self.register_buffer("own", own.float().clone())
        if isinstance(layer, ProfileNorm):
            self._rings(layer, torch.Size((H, W)))
        else:
            self.register_buffer("A", layer.amplitude.float().clone())
            whole, like = torch.ones(H, W // 2 + 1, dtype=torch.bool), torch.zeros(1, 1, H, W)
            self.register_buffer("inside", whole if layer.band == 1 else window(reach(float(layer.band), like), like))
            if self.own.numel():
                gain = torch.where(self.inside, gain_of(self.A, self.own, self.strength), 1)
                self.register_buffer("gain", gain)

    def _rings(self, layer: ProfileNorm, shape: torch.Size) -> None:
        self.shared_gain, cpu = layer.shared_gain, torch.device("cpu")
        self.register_buffer("target", layer.amplitude.float().clone())
        spacing = layer.spacing or (1.0,) * len(shape)
        self.register_buffer("average", averaging(shape, layer.radial_bins, cpu, torch.float32, spacing))
        ring = nn.functional.one_hot(ring_of(shape, layer.radial_bins, cpu, spacing).flatten(), layer.radial_bins + 1)
        self.register_buffer("spread", ring.float().T.contiguous())

    def _matrices(self, H: int, W: int) -> None:
        self.size = (H, W)
        zero = torch.zeros(H, W // 2 + 1)
        zero[0, 0] = H * W
        self.register_buffer("zero", zero)
        half = torch.arange(W // 2 + 1)
        weight = torch.full((W // 2 + 1,), 2.0 / (H * W), dtype=torch.float64)
        weight[0] /= 2
        if W % 2 == 0:
            weight[-1] /= 2
        one = torch.ones(1, dtype=torch.float64)
        for name, f, length, scale in (("y", torch.arange(H), H, one), ("x", half, W, one), ("back", half, W, weight)):
            for wave, values in zip(("cos", "sin"), waves(f, length), strict=True):
                self.register_buffer(f"{wave}_{name}", (values * scale).float())

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized images, (N, C, H, W) float32."""
        x = -x.clamp_min(DARKEST).log() if self.density else x
        mean = x.mean(dim=(-2, -1), keepdim=True)  # separate, so that the other bins keep their precision
        centred = x - mean
        by_cos, by_sin = centred @ self.cos_x, centred @ self.sin_x  # (N, C, H, W//2 + 1)
        real = self.cos_y.T @ by_cos - self.sin_y.T @ by_sin
        imaginary = -(self.sin_y.T @ by_cos + self.cos_y.T @ by_sin)
        real = real + mean * self.zero
        real, imaginary = self._matched(real, imaginary) if self.profile else self._replaced(x, real, imaginary)
        up = self.cos_y @ real - self.sin_y @ imaginary
        down = self.sin_y @ real + self.cos_y @ imaginary
        result = up @ self.cos_back.T - down @ self.sin_back.T
        return (-result.clamp_min(0)).exp() if self.density else result

    def _replaced(self, x: Tensor, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Apply Eq 4, see `harmofl.spectral.kernels`, or the filter of the site."""
        if self.own.numel():
            return real * self.gain, imaginary * self.gain
        tiny = torch.finfo(torch.float32).tiny
        norm = (x * x).sum(dim=(-2, -1), keepdim=True).sqrt()
        power = (real * real + imaginary * imaginary).clamp_min(tiny)
        silent = power <= (self.noise * norm).square().clamp_min(tiny)
        scale = self.A**self.strength * power ** (-self.strength / 2)
        new_real = torch.where(silent, scale * power.sqrt(), real * scale)
        new_imaginary = torch.where(silent, torch.zeros_like(imaginary), imaginary * scale)
        return torch.where(self.inside, new_real, real), torch.where(self.inside, new_imaginary, imaginary)

    def _matched(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the gain of `with_profile`."""
        H, W = self.size
        if self.own.numel():
            own = self.own
        else:
            own = (real * real + imaginary * imaginary).sqrt().flatten(-2) @ self.average / (H * W) ** 0.5
            own = torch.cat((own[..., :1] / (H * W) ** 0.5, own[..., 1:]), dim=-1)
            own = own.mean(dim=1, keepdim=True) if self.shared_gain else own
        noise = torch.finfo(torch.float32).eps * own.amax(dim=-1, keepdim=True)
        known = (own > noise) & (self.target > 0)
        gain = torch.where(known, self.target / own.clamp_min(torch.finfo(torch.float32).tiny), 1.0) ** self.strength
        by_bin = (gain @ self.spread).reshape(*gain.shape[:-1], H, W // 2 + 1)
        return real * by_bin, imaginary * by_bin
