"""Conversion of arrays to PNG data URIs, and drawing of mask outlines over an image."""

import base64
import io
from functools import cache

import numpy as np
from PIL import Image

from harmofl.experiment.report_array_readers import Array

CLASS_COLOURS = ("#f0e442", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#0072b2", "#e69f00")  # Okabe-Ito
_OUTLINE = 2  # pixels


def to_bytes(image: Array, side: int) -> Array:
    """Convert a (C, H, W) image to (H, W) or (H, W, 3) bytes whose longer side is about `side` pixels.

    Three channels are shown as colour; for any other number, the middle channel is shown as grey. Values are clipped
    to [0, 1].
    """
    shown = np.moveaxis(image, 0, -1) if len(image) == 3 else image[len(image) // 2]
    scaled = (np.clip(np.nan_to_num(shown), 0, 1) * 255).round().astype(np.uint8)
    return _resize(scaled, side, Image.Resampling.BOX)


def outlined(image: Array, labels: Array, side: int) -> Array:
    """Return `to_bytes` of the image with an outline around every labelled region."""
    shown = to_bytes(image, side)
    colour = shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=2)
    resized = _resize(labels.astype(np.uint8), side, Image.Resampling.NEAREST)
    drawn = colour.copy()
    drawn[_edge(resized, 1) & (resized == 0)] //= 3  # a dark rim makes the line visible on any tissue
    edge = _edge(resized, _OUTLINE) & (resized > 0)
    drawn[edge] = _palette()[resized[edge]]
    return drawn


@cache
def _palette() -> Array:
    """Return the colours (256, 3) of all classes."""
    return np.array([_rgb(class_colour(label)) for label in range(256)], dtype=np.uint8)


MISSED, INVENTED, CONFUSED = "#56b4e9", "#d55e00", "#f0e442"  # Okabe-Ito
MISTAKES = (("false negative", MISSED), ("false positive", INVENTED), ("wrong class", CONFUSED))


def compared(image: Array, truth: Array, predicted: Array, side: int) -> tuple[Array, str]:
    """Return the image in dim grey with the mistaken pixels in colour, and their shares in words."""
    shown = to_bytes(image, side)
    grey = (shown.mean(axis=2) if shown.ndim == 3 else shown) * 0.55
    drawn = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    small = (_resize(labels.astype(np.uint8), side, Image.Resampling.NEAREST) for labels in (truth, predicted))
    for where, (_, colour) in zip(_mistaken(*small), MISTAKES, strict=True):
        drawn[where] = _rgb(colour)
    wrong = zip(_mistaken(truth, predicted), MISTAKES, strict=True)
    shares = [f"{100 * where.mean():.1f} % {name} pixels" for where, (name, _) in wrong]
    return drawn, ", ".join(shares)


def _mistaken(truth: Array, predicted: Array) -> tuple[Array, Array, Array]:
    there, made = truth > 0, predicted > 0
    return there & ~made, ~there & made, there & made & (truth != predicted)


def class_colour(label: int) -> str:
    """Return the colour of a class; class 0 is background and has no outline."""
    return CLASS_COLOURS[(label - 1) % len(CLASS_COLOURS)]


def png(pixels: Array) -> bytes:
    """Return (H, W) or (H, W, 3) uint8 pixels as a PNG file."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
    image.save(buffer, format="PNG", compress_level=4)  # faster than the default level, and hardly larger
    return buffer.getvalue()


def data_uri(pixels: Array) -> str:
    """Encode the pixels as a PNG data URI."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode('ascii')}"


def _resize(pixels: Array, side: int, shrink: Image.Resampling) -> Array:
    """Shrink to `side`, or enlarge by the largest integer factor that stays within `side`."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    if longest <= side:
        factor = side // longest
        return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    size = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
    return np.asarray(Image.fromarray(pixels).resize(size, shrink))


def _edge(labels: Array, reach: int) -> Array:
    """Return True at pixels that have another label at most `reach` pixels above, below, left or right."""
    height, width = labels.shape
    padded = np.pad(labels, reach, mode="edge")
    edge = np.zeros(labels.shape, dtype=bool)
    for step in range(1, reach + 1):
        for down, right in ((step, 0), (-step, 0), (0, step), (0, -step)):
            top, left = reach + down, reach + right
            edge |= padded[top : top + height, left : left + width] != labels
    return edge


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
