"""Synthetic axial T2-weighted slices through the male pelvis: anatomy, sequence, coil and noise.

The anatomy (`draw_scene`) is the fraction of each tissue in each pixel and is independent of the site. The acquisition
of a site (`MriStyle`) is simulated: the spin-echo equation with the site's echo and repetition time, a smooth bias
field of its coil, its resolution, Rician noise and its tone curve. Coordinates run from -1 to 1, x to the right and y
to the back; organs are larger than in reality so that they are visible in small images.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from harmofl.ingest.synthetic.common import Bytes, FloatImage, Mask, as_uint8, smooth_noise, soft_step, spread

TISSUES = {
    "air": (0.0, 1000.0, 100.0),
    "fat": (0.90, 380.0, 130.0),
    "muscle": (0.80, 1400.0, 45.0),
    "cortical bone": (0.10, 500.0, 20.0),
    "marrow": (0.80, 400.0, 95.0),
    "fluid": (1.00, 4000.0, 1200.0),
    "peripheral zone": (0.90, 1700.0, 150.0),
    "central zone": (0.85, 1500.0, 90.0),
    "lesion": (0.80, 1500.0, 58.0),
}
"""Proton density (fluid = 1), T1 and T2 in ms: round numbers of a realistic order, not measurements.

The T2 of fat is its apparent, bright T2 in fast spin-echo sequences."""
INDEX = {name: i for i, name in enumerate(TISSUES)}
FATTY = ("fat", "marrow")
BIAS_TERMS = ((0, 1), (1, 0), (0, 2), (1, 1), (2, 0))


@dataclass(frozen=True)
class MriStyle:
    """The acquisition and display parameters of one scanner.

    Args:
        echo_time: TE in ms; a longer time darkens all tissues except fluid.
        repetition_time: TR in ms; a shorter time darkens fluid.
        fat: factor on the signal of fat and marrow, below 1 for fat suppression.
        bias: coefficients of the logarithm of the bias field, in the order of `BIAS_TERMS`.
        resolution: side of the acquired matrix as a fraction of the image's, at most 1.
        blur: standard deviation of the point spread function in pixels of the image.
        noise: standard deviation of the noise in each of the two quadrature channels; 1 = bladder.
        gain: factor before the tone curve.
        gamma: exponent of the tone curve.
    """

    echo_time: float
    repetition_time: float
    fat: float
    bias: tuple[float, ...]
    resolution: float
    blur: float
    noise: float
    gain: float
    gamma: float


@dataclass(frozen=True)
class MriScene:
    """Anatomy independent of any scanner.

    Args:
        fractions: (T, H, W) fraction of each of `TISSUES` in each pixel; sums to 1 over T.
        texture: (H, W) factor on the signal for details finer than tissues, about 1.
        mask: (H, W) True inside the prostate.
    """

    fractions: FloatImage
    texture: FloatImage
    mask: Mask


# ---------------------------------------------------------------------------------------------- the site


def draw_style(seed: int, site: int, shift: float) -> MriStyle:
    """Draw the style of a site; with shift 0 all sites have the same style."""
    z = shift * spread(seed, site, 13)
    bias = np.array([0.10, 0.0, 0.05, 0.0, 0.05]) + np.array([0.60, 0.40, 0.35, 0.25, 0.35]) * z[:5]
    return MriStyle(
        echo_time=float(100.0 * np.exp(0.35 * z[5])),
        repetition_time=float(4000.0 * np.exp(0.4 * z[6])),
        fat=float(0.85 * np.exp(0.55 * z[7])),
        bias=tuple(bias.tolist()),
        resolution=float(min(1.0, 0.75 * np.exp(0.35 * z[8]))),
        blur=float(0.45 * np.exp(0.5 * z[9])),
        noise=float(0.02 * np.exp(0.7 * z[10])),
        gain=float(0.95 * np.exp(0.15 * z[11])),
        gamma=float(0.85 * np.exp(0.35 * z[12])),
    )


def tissue_signals(style: MriStyle) -> FloatImage:
    """Return the signal s = PD (1 - exp(-TR / T1)) exp(-TE / T2) of each of `TISSUES`, scaled to fluid = 1.

    Returns:
        (T,) signals.
    """
    PD, T1, T2 = np.array(list(TISSUES.values())).T
    s = PD * (1.0 - np.exp(-style.repetition_time / T1)) * np.exp(-style.echo_time / T2)
    s[[INDEX[name] for name in FATTY]] *= style.fat
    return np.asarray(s / s[INDEX["fluid"]])


def bias_field(size: int, style: MriStyle) -> FloatImage:
    """Return the coil's sensitivity exp(sum_ij k_ij x^i y^j - mean), a smooth (size, size) factor about 1."""
    y, x = _grid(size)
    exponent = sum((k * x**i * y**j for k, (i, j) in zip(style.bias, BIAS_TERMS, strict=True)), np.zeros_like(x))
    return np.asarray(np.exp(exponent - exponent.mean()))


def rician(signal: FloatImage, noise: float, rng: np.random.Generator) -> FloatImage:
    """Return the magnitude of a noisy complex signal, m = |a + n1 + i n2| (Gudbjartsson and Patz 1995).

    n1 and n2 are Gaussian with standard deviation `noise`, so m is Rician: if the signal is 0, the mean of m is
    noise * sqrt(pi / 2), not 0.
    """
    n1, n2 = noise * rng.standard_normal((2, *signal.shape))
    m: FloatImage = np.hypot(signal + n1, n2)
    return m


def render(scene: MriScene, style: MriStyle, rng: np.random.Generator) -> Bytes:
    """Return the (H, W) grey image of a scene as acquired by a site; noise is added at the acquired resolution."""
    size = len(scene.texture)
    ideal = np.tensordot(tissue_signals(style), scene.fractions, axes=1) * scene.texture
    blurred = gaussian_filter(ideal * bias_field(size, style), style.blur, mode="nearest")
    matrix = max(8, round(style.resolution * size))
    acquired = rician(_resized(blurred, matrix, Image.Resampling.BOX), style.noise, rng)
    shown = style.gain * _resized(acquired, size, Image.Resampling.BICUBIC)
    return as_uint8(np.clip(shown, 0.0, 1.0) ** style.gamma)


def _resized(image: FloatImage, size: int, how: Image.Resampling) -> FloatImage:
    small = Image.fromarray(image.astype(np.float32)).resize((size, size), how)
    return np.asarray(small, dtype=np.float64)


# ------------------------------------------------------------------------------------------- the anatomy


class _Canvas:
    """Tissue fractions, painted organ by organ over each other in warped coordinates."""

    def __init__(self, size: int, x: FloatImage, y: FloatImage) -> None:
        self.x, self.y, self.pixel = x, y, 2.0 / size
        self.fractions = np.zeros((len(TISSUES), size, size))
        self.fractions[INDEX["air"]] = 1.0

    def ellipse(self, x: float, y: float, a: float, b: float, tilt: float = 0.0) -> FloatImage:
        """Return the (H, W) coverage by an ellipse with semi-axes a along the direction `tilt` and b across it."""
        u = (self.x - x) * np.cos(tilt) + (self.y - y) * np.sin(tilt)
        v = (self.y - y) * np.cos(tilt) - (self.x - x) * np.sin(tilt)
        return soft_step((1.0 - np.hypot(u / a, v / b)) * min(a, b) / self.pixel, 1.0)

    def paint(self, tissue: str, cover: FloatImage) -> None:
        """Paint a tissue over the existing ones in proportion to its coverage."""
        self.fractions *= 1.0 - cover
        self.fractions[INDEX[tissue]] += cover

    def both_sides(self, tissue: str, shapes: Iterable[tuple[float, float, float, float, float]]) -> None:
        """Paint ellipses (x, y, a, b, tilt) and their mirror images."""
        for x, y, a, b, tilt in shapes:
            self.paint(tissue, self.ellipse(x, y, a, b, tilt))
            self.paint(tissue, self.ellipse(-x, y, a, b, -tilt))


def draw_scene(size: int, lesion: bool, patient: np.random.Generator, image: np.random.Generator) -> MriScene:
    """Draw the anatomy of one slice; a lesion is a focal dark spot in the peripheral zone of the prostate.

    Args:
        size: side in pixels.
        lesion: whether there is a lesion.
        patient: fresh generator of properties common to a patient's slices: proportions of body and prostate.
        image: generator of the slice's level, its small irregularities and the lesion.
    """
    level = image.uniform(-1.0, 1.0)
    stretch, warp = patient.normal(1.05, 0.03, 2), _warp(size, 0.20, 0.025, patient)
    ripple = _warp(size, 0.07, 0.008, image)
    y, x = _grid(size)
    canvas = _Canvas(size, x * stretch[0] + warp[0] + ripple[0], y * stretch[1] + warp[1] + ripple[1])
    _paint_pelvis(canvas, patient)
    _paint_hollow_organs(canvas, level, image)
    gland = _paint_prostate(canvas, level, lesion, patient, image)
    grain = 0.06 * smooth_noise(size, 0.7, image) + 0.07 * smooth_noise(size, 2.5, image)
    return MriScene(fractions=canvas.fractions, texture=np.exp(grain), mask=gland > 0.5)


def _grid(size: int) -> tuple[FloatImage, FloatImage]:
    """Return the coordinates y and x of the pixels' centres, each (size, size) in (-1, 1)."""
    axis = (np.arange(size) + 0.5) * 2.0 / size - 1.0
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def _warp(size: int, length: float, amount: float, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """Draw smooth displacements in x and in y; `length` is a fraction of the image's side."""
    return amount * smooth_noise(size, length * size, rng), amount * smooth_noise(size, length * size, rng)


def _paint_pelvis(canvas: _Canvas, patient: np.random.Generator) -> None:
    """Paint skin, fat, muscles and bones, which are the same in all slices of a patient."""
    fat_ring = patient.uniform(0.06, 0.14)
    canvas.paint("muscle", canvas.ellipse(0.0, 0.0, 0.97, 0.83))
    canvas.paint("fat", canvas.ellipse(0.0, 0.0, 0.95, 0.81))
    inner = (0.95 - fat_ring, 0.81 - fat_ring)
    muscles = canvas.ellipse(0.0, 0.0, *inner)
    canvas.paint("muscle", 0.85 * muscles * (1.0 - canvas.ellipse(0.0, 0.02, 0.45, 0.60)))
    seams = [(0.62, 0.30, 0.26, 0.025, -0.5), (0.60, -0.28, 0.25, 0.03, 0.5), (0.30, -0.45, 0.16, 0.02, 1.0)]
    canvas.both_sides("fat", seams)
    canvas.both_sides("muscle", [(0.44, 0.02, 0.075, 0.34, 0.08)])
    canvas.both_sides("cortical bone", [(0.67, -0.02, 0.17, 0.20, 0.2), (0.15, -0.53, 0.15, 0.085, 0.5)])
    canvas.both_sides("marrow", [(0.67, -0.02, 0.145, 0.175, 0.2), (0.15, -0.53, 0.12, 0.06, 0.5)])
    canvas.paint("cortical bone", canvas.ellipse(0.0, 0.66, 0.12, 0.06))
    canvas.paint("marrow", canvas.ellipse(0.0, 0.66, 0.09, 0.035))


def _paint_hollow_organs(canvas: _Canvas, level: float, image: np.random.Generator) -> None:
    """Paint the rectum behind the prostate, the bladder in front of it in upper slices, and bright veins."""
    wide, gas = image.uniform(0.13, 0.19), image.uniform(0.35, 0.75)
    canvas.paint("muscle", canvas.ellipse(0.0, 0.44, wide, 0.12))
    canvas.paint("central zone", 0.8 * canvas.ellipse(0.0, 0.44, wide - 0.03, 0.09))
    canvas.paint("air", canvas.ellipse(image.uniform(-0.03, 0.03), 0.42, gas * wide, gas * 0.10))
    filling = np.clip(0.5 + 0.6 * level, 0.0, 1.0)
    if filling > 0.2:
        canvas.paint("muscle", canvas.ellipse(0.0, -0.33, 0.30 * filling + 0.025, 0.14 * filling + 0.025))
        canvas.paint("fluid", canvas.ellipse(0.0, -0.33, 0.30 * filling, 0.14 * filling))
    for side in (-1.0, 1.0):
        for angle in image.uniform(-0.6, 1.0, 4):
            x, y = side * 0.375 * np.cos(angle), 0.06 + 0.31 * np.sin(angle)
            canvas.paint("fluid", 0.7 * canvas.ellipse(x, y, 0.03, 0.022))


def _paint_prostate(
    canvas: _Canvas, level: float, lesion: bool, patient: np.random.Generator, image: np.random.Generator
) -> FloatImage:
    """Paint the capsule, the peripheral zone, the central zone with nodules, the urethra, and the lesion if any.

    Returns:
        (H, W) coverage by the whole gland.
    """
    scale = patient.uniform(0.9, 1.1) * (1.0 - 0.15 * level**2)
    a, b, y = 0.32 * scale, 0.26 * scale, 0.06
    core = patient.uniform(0.58, 0.70)
    gland, central = canvas.ellipse(0.0, y, a, b), canvas.ellipse(0.0, y - 0.24 * b, core * a, core * b)
    canvas.paint("muscle", 0.8 * canvas.ellipse(0.0, y, a + 0.02, b + 0.02))
    canvas.paint("peripheral zone", gland)
    if lesion:
        canvas.paint("lesion", _lesion(canvas, a, b, y, image) * gland)
    rim = canvas.ellipse(0.0, y - 0.24 * b, core * a + 0.015, core * b + 0.015) * gland
    canvas.paint("muscle", 0.6 * rim)
    canvas.paint("central zone", central)
    for _ in range(image.integers(3, 7)):
        dx, dy = core * image.uniform(-0.6, 0.6, 2) * (a, b)
        nodule = canvas.ellipse(dx, y - 0.24 * b + dy, *image.uniform(0.03, 0.07, 2)) * central
        canvas.paint(str(image.choice(["peripheral zone", "muscle"])), image.uniform(0.2, 0.6) * nodule)
    canvas.paint("muscle", 0.8 * canvas.ellipse(0.0, y - 0.92 * b, 0.45 * a, 0.2 * b) * gland)
    canvas.paint("fluid", 0.5 * canvas.ellipse(0.0, y - 0.1 * b, 0.025, 0.03))
    return gland


def _lesion(canvas: _Canvas, a: float, b: float, y: float, image: np.random.Generator) -> FloatImage:
    """Return the (H, W) coverage by a focus at the back or a side of a gland with semi-axes a, b around (0, y)."""
    angle = image.uniform(0.05, 0.95) * np.pi
    x, y = 0.80 * a * np.cos(angle), y + 0.78 * b * np.sin(angle)
    focus = canvas.ellipse(x, y, image.uniform(0.075, 0.10), image.uniform(0.06, 0.075), angle + np.pi / 2)
    return 0.95 * focus
