"""Normalizers: the layer Psi that stands before the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harmofl.methods.hyperparameters import Hyperparameters
from harmofl.spectral.amplitude import AmplitudeNorm
from harmofl.spectral.radial_profile import Per, ProfileNorm


class Normalizer(Hyperparameters):
    """Base class of the layers before the network."""

    def layer(self) -> AmplitudeNorm | None:
        """Return a new layer, or None for images that do not change."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Identity(Normalizer):
    """Images as they are."""

    def layer(self) -> None:
        """Return None."""


@dataclass(frozen=True, kw_only=True)
class Amplitude(Normalizer):
    """One amplitude for the images of all sites, Psi(x) = F^-1(A, P(x)): HarmoFL's first half (AAAI 2022, Eq 2-4).

    In round 1 each site learns its running amplitude A_i (Eq 3) while training on Psi(x) = F^-1(A_i, P(x)) (Eq 4);
    then the server averages them, and every site uses this common amplitude, also for validation and test. The common
    amplitude is sent with the weights; a site that joins later uses it and sends its own, which enters the average,
    see `harmofl.methods.common_amplitude`.

    Args:
        band: frequencies to normalize: 1 all (the paper), 0 < L < 1 a low-frequency window, 0 the mean level (the
            released code).
        decay: v of Eq 3, in [0, 1].
        strength: degree of the change to the common amplitude, in [0, 1]; 0 leaves the images unchanged.
    """

    ranges: ClassVar[Mapping[str, str]] = {"band": "[0, 1]", "decay": "[0, 1]", "strength": "[0, 1]"}
    band: float = 1.0
    decay: float = 0.1
    strength: float = 1.0

    def layer(self) -> AmplitudeNorm:
        """Return an `AmplitudeNorm`."""
        return AmplitudeNorm(self.band, self.decay, self.strength)


@dataclass(frozen=True, kw_only=True)
class RadialProfile(Normalizer):
    """One radial profile of the amplitude for all sites, Psi(x) = F^-1(gain F(x)); a variant of this package.

    gain = (R / R(x))^strength at each radius; R is averaged over sites after round 1 like the amplitude, see
    `harmofl.spectral.radial_profile`. A site sends 1 + radial_bins numbers per channel, once.

    Args:
        radial_bins: number of bins of the radius, from 1 to 65536; 1 leaves the level and the contrast.
        per: "image" takes the gain from each image's profile, "site" from the mean profile of the site.
        decay: v of HarmoFL Eq 3, in [0, 1].
        strength: degree of the change to the common profile, in [0, 1]; 0 leaves the images unchanged.
        shared_gain: one gain for all channels of an image, instead of one per channel.
    """

    ranges: ClassVar[Mapping[str, str]] = {
        "radial_bins": "whole [1, 65536]",
        "per": "image or site",
        "decay": "[0, 1]",
        "strength": "[0, 1]",
        "shared_gain": "true or false",
    }
    radial_bins: int = 32
    per: Per = "image"
    decay: float = 0.1
    strength: float = 1.0
    shared_gain: bool = False

    def layer(self) -> ProfileNorm:
        """Return a `ProfileNorm`."""
        return ProfileNorm(self.radial_bins, self.per, self.decay, self.strength, self.shared_gain)
