"""Inspection of one record: it is decoded once and measured, and the pixels are discarded."""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from harmofl.data.decoding.images import as_float, read_header
from harmofl.data.decoding.record import decode_record
from harmofl.data.decoding.volumes import Geometry, read_geometry
from harmofl.data.layout.file_names import is_volume
from harmofl.data.layout.site_files import SiteFiles
from harmofl.data.manifest import FederationInfo, Record

BINS, RINGS, THUMB = 64, 16, 16
CONTRAST = 0.05
"""The minimum difference, as a fraction of full scale, at which a foreground is lighter or darker than the rest."""
_HASH = (9, 8)  # columns, rows


@dataclass(frozen=True)
class Inspected:
    """The measurements of one decoded record.

    Args:
        site: the site's name.
        record: the record.
        classes: indices of the classes that occur in it.
        constant: whether all its pixels are equal.
        digest: hash of the image file's bytes.
        kind: kind of the file, such as "RGB, 8 bit" or "volume, int16".
        size: (H, W) of the image or of a volume's slices, as stored.
        slices: number of used slices, or 1 for a photograph.
        geometry: spacing and axes of a volume, else None.
        alpha: whether the file has an alpha channel, which is dropped.
        turned: whether the file has an orientation tag: viewers show it turned, here it is used as stored.
        largest: the largest stored value of a photograph; 255 or 65535 is full scale.
        lighter: mean inside the foreground minus mean outside, in [-1, 1]; None if one of them is empty.
        foreground: share of the pixels that are not background; 0 for classification.
        grey: 16-bin histogram of its grey values, summing to about 255.
        look_alike: 64-bit perceptual hash: similar images have similar hashes.
        thumb: 16 x 16 grey values.
    """

    site: str
    record: Record
    classes: frozenset[int]
    constant: bool
    digest: str
    kind: str
    size: tuple[int, int]
    slices: int
    geometry: Geometry | None
    alpha: bool
    turned: bool
    largest: float
    lighter: float | None
    foreground: float
    grey: bytes
    look_alike: int
    thumb: bytes


@dataclass(frozen=True)
class Sums:
    """Sums over the images of a site.

    Args:
        images: number of images.
        histogram: (C, 64) number of pixels in each of 64 equal parts of [0, 1].
        profile: (C, 1 + 16) sum of the radial amplitude profiles, see `harmofl.spectral.radial_profile`.
        pixels: (classes,) number of pixels of each class, or of images for classification.
    """

    images: int
    histogram: np.ndarray
    profile: np.ndarray
    pixels: np.ndarray

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.images + other.images,
            self.histogram + other.histogram,
            self.profile + other.profile,
            self.pixels + other.pixels,
        )


def look(site: SiteFiles, record: Record, info: FederationInfo) -> tuple[Inspected, Sums]:
    """Decode a record and measure it.

    Raises:
        DataError: as in `decode_record`.
    """
    path = site.folder / record.image
    images, targets = decode_record(site.folder, record, info)
    header = read_header(path)
    geometry = read_geometry(path) if is_volume(record.image) else None
    middle = _grey(images[len(images) // 2] if len(images) else np.zeros((1, 2, 2), np.uint8))
    seen = Inspected(
        site=site.name,
        record=record,
        classes=frozenset(np.unique(targets).tolist()),
        constant=bool(images.size and images.min() == images.max()),
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        kind=header.kind,
        size=header.size,
        slices=len(images),
        geometry=geometry,
        alpha=header.alpha,
        turned=header.orientation != 1,
        largest=float(images.max(initial=0)) * (1 if images.dtype == np.uint8 else 65535),
        lighter=_lighter(images, targets) if info.task == "segmentation" else None,
        foreground=float((targets > 0).mean()) if info.task == "segmentation" and targets.size else 0.0,
        grey=_histogram(middle),
        look_alike=_look_alike(middle),
        thumb=_resized(middle, (THUMB, THUMB)).tobytes(),
    )
    return seen, _sums(images, targets, len(info.classes))


def _grey(image: np.ndarray) -> np.ndarray:
    """Convert a (C, H, W) image to (H, W) uint8: the mean of 3 channels, else the middle channel."""
    plane = image.mean(axis=0) if len(image) == 3 else image[len(image) // 2]
    return np.asarray(np.rint(plane * (255 if image.dtype != np.uint8 else 1)), dtype=np.uint8)


def _resized(grey: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))


def _look_alike(grey: np.ndarray) -> int:
    """Return the difference hash: for each pair of neighbours in a row of a 9 x 8 thumbnail, which is lighter."""
    small = _resized(grey, _HASH).astype(np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def _histogram(grey: np.ndarray) -> bytes:
    counts = np.bincount(grey.reshape(-1) >> 4, minlength=16)
    shares: np.ndarray = np.rint(counts * (255 / max(1, grey.size))).astype(np.uint8)
    return shares.tobytes()


def _lighter(images: np.ndarray, targets: np.ndarray) -> float | None:
    inside = targets > 0
    if not inside.any() or inside.all():
        return None
    grey = images.mean(axis=1) / (255 if images.dtype == np.uint8 else 1)
    return float(grey[inside].mean() - grey[~inside].mean())


def _sums(images: np.ndarray, targets: np.ndarray, classes: int) -> Sums:
    """Sum an image's statistics; for a volume only the middle channel, so that each slice counts once."""
    import torch

    from harmofl.spectral.radial_profile import profile

    kept = images if images.shape[1] == 3 else images[:, [images.shape[1] // 2]]
    level = as_float(kept)
    bins = kept // (256 // BINS) if kept.dtype == np.uint8 else np.minimum((level * BINS).astype(np.int64), BINS - 1)
    histogram = np.stack([np.bincount(bins[:, c].reshape(-1), minlength=BINS) for c in range(bins.shape[1])])
    amplitudes = profile(torch.from_numpy(np.ascontiguousarray(level)), RINGS).sum(dim=0).double().numpy()
    return Sums(len(images), histogram, amplitudes, np.bincount(targets.reshape(-1), minlength=classes))
