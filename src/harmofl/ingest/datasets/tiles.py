"""Common functions of the histology data sets: tiling of large images, and masks from outlines."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw

from harmofl.data.decoding.images import read_image, read_mask, reading
from harmofl.data.manifest import Record
from harmofl.errors import DataError
from harmofl.ingest.datasets.dataset import Item
from harmofl.ingest.image_writing import save_png

Outline = tuple[str, Sequence[tuple[float, float]]]
"""A class name ("" if none is given) and the (x, y) corners in pixels."""


def read_colour(path: Path) -> np.ndarray:
    """Read an image as (H, W, 3) uint8; from an SVS file, which is a TIFF, the first and largest page.

    Raises:
        DataError: if it cannot be read or has more than 8 bit.
    """
    if path.suffix.lower() == ".svs":
        with reading(path, also=(".svs",)), Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    pixels = read_image(path)
    if pixels.dtype != np.uint8 or len(pixels) not in (1, 3):
        raise DataError("must be an 8-bit photograph; download it again")
    return np.moveaxis(np.repeat(pixels, 4 - len(pixels), axis=0)[:3], 0, 2)


def read_outlines(path: Path) -> list[Outline]:
    """Read the regions of an Aperio ImageScope annotation; regions with fewer than 3 corners are skipped.

    Raises:
        DataError: naming the file, if it is not such an annotation.
    """
    try:
        root = ElementTree.parse(path).getroot()  # expat expands no external entities
        return [
            (_class_of(layer), corners)
            for layer in root.iter("Annotation")
            for region in layer.iter("Region")
            if len(corners := [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")]) > 2
        ]
    except (ElementTree.ParseError, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path.name}: must be an Aperio annotation, but {error}; download it again") from None


def _class_of(layer: ElementTree.Element) -> str:
    attribute = layer.find("Attributes/Attribute")
    return "" if attribute is None else attribute.get("Name", "").strip()


def filled(outlines: Sequence[Outline], size: tuple[int, int], without: Sequence[str] = ()) -> np.ndarray:
    """Return an (H, W) uint8 mask with 255 inside all outlines except those of the classes `without`."""
    mask = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(mask)
    for name, corners in outlines:
        if name not in without:
            draw.polygon(list(corners), fill=255)
    return np.asarray(mask)


def read_binary(path: Path) -> np.ndarray:
    """Read a mask file as (H, W) uint8, with 255 where it is not 0.

    Raises:
        DataError: naming the file, if it cannot be read.
    """
    try:
        return np.where(read_mask(path)[0] > 0, np.uint8(255), np.uint8(0))
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from None


def write_tiles(item: Item, folder: Path, image: np.ndarray, mask: np.ndarray, tile: int | None) -> list[Record]:
    """Write an image and its mask, whole or in tiles, as PNG; the tiles of one image are one case.

    Raises:
        DataError: if they differ in size.
    """
    if image.shape[:2] != mask.shape:
        got, want = ("x".join(map(str, shape)) for shape in (mask.shape, image.shape[:2]))
        raise DataError(f"its mask is {got} (height x width), but the image is {want}; download it again")
    records = []
    for suffix, part, labels in _pieces(image, mask, tile):
        names = [f"{place}/{item.name}{suffix}.png" for place in ("images", "masks")]
        save_png(part, folder / names[0])
        save_png(labels, folder / names[1])
        records.append(Record(names[0], names[1], item.patient, item.name, item.split))
    return records


def _pieces(image: np.ndarray, mask: np.ndarray, tile: int | None) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    if tile is None:
        yield "", image, mask
        return
    image, mask = _at_least(image, tile), _at_least(mask, tile)
    for y in _starts(mask.shape[0], tile):
        for x in _starts(mask.shape[1], tile):
            yield f"_y{y}_x{x}", image[y : y + tile, x : x + tile], mask[y : y + tile, x : x + tile]


def _starts(length: int, tile: int) -> list[int]:
    """Return the starts of tiles that cover the length with the least overlap."""
    count = -(-length // tile)
    return [round(k * (length - tile) / max(1, count - 1)) for k in range(count)]


def _at_least(array: np.ndarray, side: int) -> np.ndarray:
    """Mirror an array at its lower and right border until it has at least `side` rows and columns."""
    missing = [(0, max(0, side - length)) for length in array.shape[:2]]
    return np.pad(array, [*missing, *[(0, 0)] * (array.ndim - 2)], mode="symmetric")
