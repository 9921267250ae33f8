"""Acquisition of synthetic haematoxylin-eosin tissue: stain and scanner of a site.

It is simulated: absorption by Beer-Lambert with the site's stain matrix, then the scanner's point spread function, shot
and read noise, white balance and gamma.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from harmofl.ingest.synthetic.cells_anatomy import CellsScene
from harmofl.ingest.synthetic.common import Bytes, FloatImage, as_uint8, spread

HAEMATOXYLIN = (0.65, 0.70, 0.29)
"""Optical density of haematoxylin in red, green and blue (Ruifrok and Johnston 2001), about unit length."""
EOSIN = (0.07, 0.99, 0.11)
"""Optical density of eosin in red, green and blue (Ruifrok and Johnston 2001), about unit length."""


@dataclass(frozen=True)
class CellsStyle:
    """The staining and scanning parameters of one laboratory.

    Args:
        haematoxylin: unit optical density vector of haematoxylin (red, green, blue).
        eosin: unit optical density vector of eosin.
        haematoxylin_strength: factor on the concentration of haematoxylin.
        eosin_strength: factor on the concentration of eosin.
        light: I0, the intensity per channel without tissue, 1 = the sensor's white.
        gain: white balance, a factor per channel after the sensor.
        gamma: exponent of the tone curve.
        blur: standard deviation of the point spread function in pixels.
        full_well: photo-electrons at intensity 1; a lower number gives more noise.
        read_noise: standard deviation of the electronics' noise, in units of intensity.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    haematoxylin_strength: float
    eosin_strength: float
    light: float
    gain: tuple[float, float, float]
    gamma: float
    blur: float
    full_well: float
    read_noise: float


def draw_style(seed: int, site: int, shift: float) -> CellsStyle:
    """Draw the style of a site; with shift 0 all sites have the same style.

    With shift 1 sites differ in brightness, colour and spectrum about as much as the nucleus images of six hospitals;
    docs/data.md has the figures.
    """
    z = shift * spread(seed, site, 16)
    gain = np.exp(0.10 * z[6:9])
    return CellsStyle(
        haematoxylin=_turned(HAEMATOXYLIN, 0.22 * z[0], 0.22 * z[1]),
        eosin=_turned(EOSIN, 0.20 * z[2], 0.12 * z[3]),
        haematoxylin_strength=float(np.exp(0.40 * z[4])),
        eosin_strength=float(np.exp(0.50 * z[5])),
        light=float(min(0.78 * np.exp(0.24 * z[9]), 1.0)),  # at most the sensor's white; limits only shifts above 1
        gain=(float(gain[0]), float(gain[1]), float(gain[2])),
        gamma=float(np.exp(0.25 * z[10])),
        blur=float(0.7 * np.exp(0.35 * z[11])),
        full_well=float(1500.0 * np.exp(-0.8 * z[12])),
        read_noise=float(0.008 * np.exp(0.5 * z[13])),
    )


def _turned(vector: tuple[float, float, float], to_red: float, to_blue: float) -> tuple[float, float, float]:
    """Turn a stain's vector by about the given radians towards red and blue, and normalise it to length 1."""
    turned = np.maximum(np.array(vector) + np.array([to_red, 0.0, to_blue]), 0.01)
    red, green, blue = (turned / np.linalg.norm(turned)).tolist()
    return red, green, blue


def transmit(haematoxylin: FloatImage, eosin: FloatImage, style: CellsStyle) -> FloatImage:
    """Return the transmitted light by the Beer-Lambert law, I = I0 exp(-S c).

    S is the 3 x 2 matrix whose columns are the site's stain vectors, c the two concentrations times the
    site's strengths, I0 the light without tissue.

    Args:
        haematoxylin: (H, W) concentrations, >= 0.
        eosin: (H, W) concentrations, >= 0.
        style: the site's style.

    Returns:
        (H, W, 3) intensities in [0, I0].
    """
    S = np.array([style.haematoxylin, style.eosin]).T
    c = np.stack([style.haematoxylin_strength * haematoxylin, style.eosin_strength * eosin], axis=-1)
    I: FloatImage = style.light * np.exp(-(c @ S.T))  # noqa: E741
    return I


def scan(light: FloatImage, style: CellsStyle, rng: np.random.Generator) -> Bytes:
    """Simulate the scanner: blur, shot and read noise, white balance, gamma, 8 bits.

    Args:
        light: (H, W, 3) intensities, 1 = the sensor's white.
        style: the site's style.
        rng: random number generator of the sensor's noise.

    Returns:
        (H, W, 3) RGB.
    """
    blurred = gaussian_filter(light, (style.blur, style.blur, 0.0), mode="nearest")
    counted = rng.poisson(style.full_well * blurred) / style.full_well
    measured = counted + style.read_noise * rng.standard_normal(light.shape)
    balanced = np.maximum(measured * np.array(style.gain), 0.0)
    return as_uint8(balanced**style.gamma)


def render(scene: CellsScene, style: CellsStyle, rng: np.random.Generator) -> Bytes:
    """Return the (H, W, 3) RGB image of a scene as acquired by a site."""
    return scan(transmit(scene.haematoxylin, scene.eosin, style), style, rng)
