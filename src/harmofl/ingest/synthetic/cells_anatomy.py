"""Anatomy of synthetic haematoxylin-eosin tissue: two maps of dye concentration, independent of the site.

One pixel is about half a micrometre.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from harmofl.ingest.synthetic.common import FloatImage, Indices, Mask, smooth_noise, soft_step

RADIUS_LIMITS = (2.2, 9.0)
WOBBLE_LIMITS = (0.6, 1.4)
HARMONICS = (2, 3, 4, 5)


@dataclass(frozen=True)
class CellsScene:
    """Tissue independent of any laboratory; all maps are (H, W).

    Args:
        haematoxylin: concentration of haematoxylin, >= 0; 1 is an optical density of 1 along its vector.
        eosin: concentration of eosin, >= 0.
        mask: True inside nuclei.
    """

    haematoxylin: FloatImage
    eosin: FloatImage
    mask: Mask


@dataclass(frozen=True)
class _Nuclei:
    """N nuclei: centres (N, 2) as (row, column) in pixels, all other fields (N,)."""

    centre: FloatImage
    radius: FloatImage
    ratio: FloatImage
    angle: FloatImage
    irregular: FloatImage
    dark: FloatImage
    nucleolus: FloatImage

    def keep(self, chosen: Mask) -> "_Nuclei":
        return _Nuclei(**{name: values[chosen] for name, values in vars(self).items()})


def draw_scene(size: int, tumor: bool, patient: np.random.Generator, image: np.random.Generator) -> CellsScene:
    """Draw the tissue of one field of view: glands with a lumen in a fibrous stroma, and their nuclei.

    Tumour nuclei are larger, more irregular, denser, darker and have prominent nucleoli; glands are more
    solid. The classes differ in no other way.

    Args:
        size: side in pixels.
        tumor: whether the epithelium is malignant.
        patient: fresh generator of properties common to a patient's fields: size and darkness of nuclei, amount of
            epithelium.
        image: generator of all other properties.
    """
    scale, darkness, amount = patient.normal([1.0, 1.0, 0.62], [0.05, 0.08, 0.07])
    field = smooth_noise(size, 11.0, image)
    gland = field - np.quantile(field, 1.0 - np.clip(amount, 0.45, 0.8))
    epithelium = soft_step(gland, 0.3)
    lumen = soft_step(gland - (2.0 if tumor else 1.5), 0.2)
    direction = image.uniform(0.0, np.pi)
    nuclei = _settle(_candidates(size, tumor, epithelium, lumen, direction, image), scale, image)
    inside, profile = _paint(nuclei, size, image)
    cell_border = _cell_borders(nuclei.centre, size)
    stroma = _fibres(size, direction, image)
    cytoplasm = (0.50 + 0.07 * smooth_noise(size, 0.8, image)) * (1.0 - 0.35 * cell_border)
    eosin = (1.0 - lumen) * (epithelium * cytoplasm + (1.0 - epithelium) * stroma) + 0.02
    eosin = np.where(inside > 0.0, (1.0 - inside) * eosin + inside * 0.28, eosin)
    basophilic = (0.16 if tumor else 0.12) * epithelium * (1.0 - lumen)
    haematoxylin = basophilic * (1.0 - inside) + darkness * profile
    thickness = np.exp(0.07 * smooth_noise(size, 14.0, image))
    return CellsScene(
        haematoxylin=np.maximum(haematoxylin, 0.0) * thickness,
        eosin=np.maximum(eosin, 0.0) * thickness,
        mask=inside > 0.5,
    )


def _candidates(
    size: int, tumor: bool, epithelium: FloatImage, lumen: FloatImage, direction: float, rng: np.random.Generator
) -> _Nuclei:
    """Draw candidate nuclei of three kinds: epithelial, fibroblast, lymphocyte."""
    count = int(0.04 * (size + 12) ** 2)
    centre = rng.uniform(-6.0, size + 6.0, (count, 2))
    row, column = np.clip(np.rint(centre).astype(int), 0, size - 1).T
    chance = rng.random((2, count))
    kind = np.where(chance[0] < epithelium[row, column], 0, np.where(chance[1] < 0.3, 2, 1))
    pleomorphism = 0.17 if tumor else 0.06
    radius = np.array([5.9 if tumor else 4.3, 4.6, 2.9])[kind] * np.exp(
        np.array([pleomorphism, 0.15, 0.06])[kind] * rng.standard_normal(count)
    )
    nuclei = _Nuclei(
        centre=centre,
        radius=radius,
        ratio=np.array([0.78, 0.32, 0.92])[kind] * rng.uniform(0.85, 1.08, count),
        angle=np.where(kind == 1, direction + rng.normal(0.0, 0.3, count), rng.uniform(0.0, np.pi, count)),
        irregular=np.array([0.09 if tumor else 0.03, 0.04, 0.02])[kind],
        dark=np.array([1.45 if tumor else 1.05, 1.25, 1.65])[kind] * np.exp(rng.normal(0.0, 0.12, count)),
        nucleolus=np.array([0.8 if tumor else 0.2, 0.0, 0.0])[kind],
    )
    crowding = np.array([1.0 if tumor else 0.65, 0.16, 0.25])[kind] * (1.0 - lumen[row, column])
    return nuclei.keep(rng.random(count) < crowding)


def _settle(nuclei: _Nuclei, scale: float, rng: np.random.Generator) -> _Nuclei:
    """Scale the candidates and remove overlaps, keeping the earlier of two nuclei."""
    radius = np.clip(nuclei.radius * scale, *RADIUS_LIMITS)
    room = radius * np.maximum(np.sqrt(nuclei.ratio), 0.8) * rng.uniform(0.95, 1.25, len(radius))
    gap = nuclei.centre[:, None] - nuclei.centre[None]
    collide = np.hypot(gap[..., 0], gap[..., 1]) <= room[:, None] + room
    stays = np.ones(len(room), dtype=bool)
    for i in range(len(room)):
        if stays[i]:
            stays[i + 1 :] &= ~collide[i, i + 1 :]
    return _Nuclei(**{**vars(nuclei), "radius": radius}).keep(stays)


def _paint(nuclei: _Nuclei, size: int, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """Return the (H, W) coverage by nuclei in [0, 1] and their (H, W) haematoxylin."""
    owner, rows, columns = _near(nuclei, size)
    dy, dx = rows - nuclei.centre[owner, 0], columns - nuclei.centre[owner, 1]
    edge = _boundary(nuclei, owner, np.arctan2(dy, dx), rng)
    rho = np.hypot(dy, dx)
    cover = soft_step(edge - rho, 1.2)
    rim = np.exp(-(((rho / edge - 0.85) / 0.2) ** 2))
    seat = 0.4 * nuclei.radius * rng.uniform(-1.0, 1.0, (2, len(nuclei.radius)))
    spot = np.exp(-((dy - seat[0, owner]) ** 2 + (dx - seat[1, owner]) ** 2) / (2.0 * 0.9**2))
    value = nuclei.dark[owner] * (0.72 + 0.28 * rim) + nuclei.nucleolus[owner] * spot
    inside, profile = np.zeros((size, size)), np.zeros((size, size))
    np.maximum.at(inside, (rows, columns), cover)
    np.maximum.at(profile, (rows, columns), cover * value)
    chromatin = 1.0 + 0.20 * smooth_noise(size, 0.9, rng)
    return inside, profile * chromatin


def _near(nuclei: _Nuclei, size: int) -> tuple[Indices, Indices, Indices]:
    """Return the indices, rows and columns of all pairs of a nucleus and a pixel that it can cover."""
    reach = WOBBLE_LIMITS[1] * nuclei.radius / np.sqrt(nuclei.ratio) + 1.0
    half = int(np.ceil(np.max(reach, initial=0.0)))
    dy, dx = (offset.ravel() for offset in np.mgrid[-half : half + 1, -half : half + 1])
    owner, pixel = np.nonzero(np.hypot(dy, dx) <= reach[:, None] + 1.0)
    corner = np.floor(nuclei.centre).astype(int)
    rows, columns = corner[owner, 0] + dy[pixel], corner[owner, 1] + dx[pixel]
    seen = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    return owner[seen], rows[seen], columns[seen]


def _boundary(nuclei: _Nuclei, owner: Indices, theta: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Return the distance from a nucleus's centre to its edge in direction theta: an ellipse times random harmonics.

    r(theta) = a b / sqrt((b cos phi)^2 + (a sin phi)^2) * (1 + sum_k s_k cos(k theta + p_k)), k = 2..5
    """
    a, b = nuclei.radius / np.sqrt(nuclei.ratio), nuclei.radius * np.sqrt(nuclei.ratio)
    phi = theta - nuclei.angle[owner]
    ellipse = (a * b)[owner] / np.hypot(b[owner] * np.cos(phi), a[owner] * np.sin(phi))
    p = rng.uniform(0.0, 2.0 * np.pi, (len(HARMONICS), len(a)))
    s = nuclei.irregular * rng.standard_normal((len(HARMONICS), len(a))) * 2.5 / np.array(HARMONICS)[:, None]
    wobble = np.ones_like(theta)
    for i, k in enumerate(HARMONICS):
        wobble += s[i, owner] * np.cos(k * theta + p[i, owner])
    r: FloatImage = ellipse * np.clip(wobble, *WOBBLE_LIMITS)
    return r


def _cell_borders(centre: FloatImage, size: int) -> FloatImage:
    """Return 1 halfway between the two nearest nuclei, falling to 0 within about 1.5 pixels."""
    if len(centre) < 2:
        return np.zeros((size, size))
    pixels = np.indices((size, size)).reshape(2, -1).T
    near = cKDTree(centre).query(pixels, k=2)[0].reshape(size, size, 2)
    return np.asarray(np.exp(-(((near[..., 1] - near[..., 0]) / 1.5) ** 2)))


def _fibres(size: int, direction: float, rng: np.random.Generator) -> FloatImage:
    """Return the concentration of eosin in wavy collagen along `direction`, with clefts between bundles."""
    rows, columns = np.mgrid[:size, :size].astype(float)
    wave = 3.0 * smooth_noise(size, 9.0, rng)
    along = np.cos(direction) * columns + np.sin(direction) * rows
    across = np.cos(direction) * rows - np.sin(direction) * columns + wave
    fine, coarse = smooth_noise(size, (0.8, 5.0), rng), smooth_noise(size, (2.0, 9.0), rng)
    strands = map_coordinates(fine + 1.2 * coarse, [across, along], order=1, mode="grid-wrap") / 1.5
    return np.asarray((0.62 + 0.16 * strands) * (1.0 - 0.85 * soft_step(-strands - 1.35, 0.4)))
