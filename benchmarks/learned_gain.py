"""A normalizer that is learned: a small network chooses the gain of each image's spectrum; for `evidence.py`.

    --methods "learned gain=fedavg+learned_gain.LearnedGain"

It is a candidate of docs/evidence.md, and not part of the package.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from harmofl.intensity.zscore import ZScoreNorm
from harmofl.methods.parts.normalizers import Normalizer
from harmofl.spectral.image_norm import ImageNorm
from harmofl.spectral.radial_profile import profile, ring_of

MOST = 1.5
"""Largest logarithm of a gain."""


class LearnedGainNorm(ImageNorm):
    """Psi(x) = F^-1(exp(g(log R(z))) F(z)) of z-scores z, with the radial profile R and a small network g.

    g sees the profile of one channel and is the same for all channels. It begins with gains of 1, is trained with the
    model's loss, and is averaged over the sites as the weights are.

    Args:
        radial_bins: number of bins of the radius.
        hidden: width of g.
    """

    what: ClassVar[str] = ""

    def __init__(self, radial_bins: int, hidden: int) -> None:
        super().__init__()
        self.radial_bins, self.scores = radial_bins, ZScoreNorm()
        last = nn.Linear(hidden, 1 + radial_bins)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.gain = nn.Sequential(nn.Linear(1 + radial_bins, hidden), nn.ReLU(), last)

    def normalize(self, x: Tensor) -> Tensor:
        """Return Psi(x)."""
        z = self.scores.normalize(x)
        gain = (MOST * torch.tanh(self.gain(profile(z, self.radial_bins).clamp_min(1e-6).log()))).exp()
        ring = ring_of(z.shape[2:], self.radial_bins, z.device)
        changed: Tensor = torch.fft.irfft2(torch.fft.rfft2(z) * gain[..., ring], s=z.shape[2:])
        return changed.to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class LearnedGain(Normalizer):
    """A gain for each radius of an image's spectrum, chosen by a small network."""

    ranges: ClassVar[Mapping[str, str]] = {"radial_bins": "whole [1, 65536]", "hidden": "whole [1, 65536]"}
    radial_bins: int = 16
    hidden: int = 32

    def layer(self) -> LearnedGainNorm:
        """Return a `LearnedGainNorm`."""
        return LearnedGainNorm(self.radial_bins, self.hidden)
