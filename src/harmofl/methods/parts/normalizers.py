"""Normalizers: the layer Psi that stands before the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from harmofl.intensity.jitter import AmplitudeJitter, StainJitter
from harmofl.intensity.landmarks import HistogramNorm
from harmofl.intensity.macenko import MacenkoNorm
from harmofl.intensity.reinhard import ReinhardNorm
from harmofl.intensity.zscore import ZScoreNorm
from harmofl.methods.hyperparameters import Hyperparameters
from harmofl.spectral.amplitude import AmplitudeNorm
from harmofl.spectral.image_norm import ImageNorm, Per, Space
from harmofl.spectral.radial_profile import ProfileNorm


class Normalizer(Hyperparameters):
    """Base class of the layers before the network."""

    def layer(self) -> ImageNorm | None:
        """Return a new layer, or None for images that do not change."""
        raise NotImplementedError

    @property
    def learns(self) -> bool:
        """True if a site learns a statistic of its images, and sends it once."""
        layer = self.layer()
        return layer is not None and layer.learns

    @property
    def takes_noise(self) -> bool:
        """True if privacy.clip and privacy.noise leave the statistic valid, or there is none."""
        layer = self.layer()
        return layer is None or not layer.learns or layer.takes_noise


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
        per: "image" as in HarmoFL; "site" filters all images of a site by (A / A_i)^strength, which keeps their
            content, a variant of this package.
        space: "intensity", or "density" for the optical density, in which stains add up; a variant of this package.
    """

    ranges: ClassVar[Mapping[str, str]] = {
        "band": "[0, 1]",
        "decay": "[0, 1]",
        "strength": "[0, 1]",
        "per": "image or site",
        "space": "intensity or density",
    }
    band: float = 1.0
    decay: float = 0.1
    strength: float = 1.0
    per: Per = "image"
    space: Space = "intensity"

    def layer(self) -> AmplitudeNorm:
        """Return an `AmplitudeNorm`."""
        return AmplitudeNorm(self.band, self.decay, self.strength, self.per, self.space)


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
        spacing: distance of two pixels along each axis of the images, such as (3, 1, 1) in mm for volumes
            (D, H, W); the radius is then in cycles per mm. Empty: equal along all axes.
        space: "intensity", or "density" for the optical density, in which stains add up.
    """

    ranges: ClassVar[Mapping[str, str]] = {
        "radial_bins": "whole [1, 65536]",
        "per": "image or site",
        "decay": "[0, 1]",
        "strength": "[0, 1]",
        "shared_gain": "true or false",
        "spacing": "list of [0.0001, 10000]",
        "space": "intensity or density",
    }
    radial_bins: int = 32
    per: Per = "image"
    decay: float = 0.1
    strength: float = 1.0
    shared_gain: bool = False
    spacing: tuple[float, ...] = ()
    space: Space = "intensity"

    def layer(self) -> ProfileNorm:
        """Return a `ProfileNorm`."""
        given = (self.per, self.decay, self.strength, self.shared_gain, self.spacing, self.space)
        return ProfileNorm(self.radial_bins, *given)


@dataclass(frozen=True, kw_only=True)
class ZScore(Normalizer):
    """Mean 0 and standard deviation 1 of each channel of an image.

    Args:
        per: "image"; or "site" to give all images of a site one linear map, to the mean and deviation of all sites.
    """

    ranges: ClassVar[Mapping[str, str]] = {"per": "image or site"}
    per: Per = "image"

    def layer(self) -> ZScoreNorm:
        """Return a `ZScoreNorm`."""
        return ZScoreNorm(self.per)


@dataclass(frozen=True, kw_only=True)
class Histogram(Normalizer):
    """Percentiles of each image mapped to those of all sites: Nyul et al., IEEE TMI 2000.

    Args:
        landmarks: number of percentiles from 1 to 99; 11 as published.
    """

    ranges: ClassVar[Mapping[str, str]] = {"landmarks": "whole [2, 256]"}
    landmarks: int = 11

    def layer(self) -> HistogramNorm:
        """Return a `HistogramNorm`."""
        return HistogramNorm(self.landmarks)


@dataclass(frozen=True, kw_only=True)
class Reinhard(Normalizer):
    """Mean and deviation of each image in CIELAB set to those of all sites: Reinhard et al., IEEE CG&A 2001."""

    def layer(self) -> ReinhardNorm:
        """Return a `ReinhardNorm`."""
        return ReinhardNorm()


@dataclass(frozen=True, kw_only=True)
class Macenko(Normalizer):
    """Stain colors and strengths of each image set to those of all sites: Macenko et al., ISBI 2009."""

    def layer(self) -> MacenkoNorm:
        """Return a `MacenkoNorm`."""
        return MacenkoNorm()


@dataclass(frozen=True, kw_only=True)
class JitteredStains(Normalizer):
    """Training images with random stain concentrations: Tellez et al., IEEE TMI 2018.

    Args:
        sigma: width of the changes.
    """

    ranges: ClassVar[Mapping[str, str]] = {"sigma": "[0, 1]"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"sigma": (0.01, 0.2)}
    sigma: float = 0.05

    def layer(self) -> StainJitter:
        """Return a `StainJitter`."""
        return StainJitter(self.sigma)


@dataclass(frozen=True, kw_only=True)
class JitteredAmplitude(Normalizer):
    """Training images with random amplitudes at each radius of the spectrum; a variant of this package.

    Args:
        radial_bins: number of bins of the radius, from 1 to 65536.
        sigma: deviation of the logarithm of the gain.
    """

    ranges: ClassVar[Mapping[str, str]] = {"radial_bins": "whole [1, 65536]", "sigma": "[0, 10]"}
    search_space: ClassVar[Mapping[str, tuple[float, float]]] = {"sigma": (0.02, 1)}
    radial_bins: int = 8
    sigma: float = 0.2

    def layer(self) -> AmplitudeJitter:
        """Return an `AmplitudeJitter`."""
        return AmplitudeJitter(self.radial_bins, self.sigma)
