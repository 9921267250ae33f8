"""Reading of the stored numbers of a photograph or mask: PNG and JPEG here, TIFF through `tiffs`."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from harmofl.data.decoding import tiffs
from harmofl.data.decoding.stored_pixels import Header, Stored
from harmofl.errors import DataError

_ORIENTATION = 0x0112  # EXIF
_MODES = {
    **{"1": "black and white", "L": "grey", "LA": "grey with alpha", "La": "grey with alpha", "I;16": "grey"},
    **{"P": "palette", "PA": "palette", "RGBA": "RGB with alpha", "RGBa": "RGB with alpha"},
}
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BITS, _PNG_COLOURS = 24, 25  # positions of the bit depth and the colour type in a PNG
_GREY_WITH_ALPHA = 4


def read_photograph_header(path: Path, *, turned: bool = True) -> Header:
    """Read the header of a photograph or mask, see `images.read_header`; call it inside `images.reading`."""
    with _opened(path) as (file, start):
        if tiffs.is_tiff(start):
            return tiffs.read_tiff_header(file)
        with Image.open(file) as image:
            mode = image.mode
            if _deep(image, start) and start[_PNG_COLOURS:] == bytes([_GREY_WITH_ALPHA]):
                mode = "LA"  # Pillow converts them to colours
            if turned and image.format == "PNG" and _holds_metadata(file):
                image.load()  # then Pillow knows those after the pixels too
            return Header(
                (image.height, image.width),
                colour=mode not in ("1", "L", "LA", "La", "I;16", "I"),
                kind=f"{_MODES.get(mode, mode)}, {16 if _deep(image, start) else 8} bit",
                alpha=mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info,
                orientation=_orientation(image),
            )


def read_stored(source: Path | BinaryIO) -> Stored:
    """Decode a photograph or mask from a file or from memory; call it inside `images.reading` or `images.quiet`.

    Raises:
        DataError: if the file holds several images, or a kind that cannot be read exactly.
    """
    with _opened(source) as (file, start):
        if tiffs.is_tiff(start):
            return tiffs.read_stored_tiff(file)
        with Image.open(file) as image:
            pages = getattr(image, "n_frames", 1)
            if pages > 1:
                raise DataError(f"must be one image, got a {image.format} of {pages} frames; split it into files")
            image.load()
            orientation = _orientation(image)
            if _deep(image, start) and image.mode in ("RGB", "RGBA", "LA"):  # Pillow keeps 8 of 16 bits
                file.seek(0)
                samples, alpha = _deep_png(file.read())
                return Stored(samples, 16, alpha=alpha, orientation=orientation)
            return _pillow(image, start, orientation)


@contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[tuple[BinaryIO, bytes]]:
    """Yield a file at its beginning, and its first bytes."""
    with open(source, "rb") if isinstance(source, Path) else io.BytesIO(source.read()) as file:  # noqa: PTH123
        start = file.read(_PNG_COLOURS + 1)
        file.seek(0)
        try:
            yield file, start
        except UnidentifiedImageError:
            raise DataError(
                "cannot be read (it is not an image of a known format); restore it or leave it out"
            ) from None


def _holds_metadata(file: BinaryIO) -> bool:
    """Return whether a PNG may have an orientation, in EXIF or XMP."""
    position = file.tell()
    file.seek(0)
    data = file.read().lower()
    file.seek(position)
    return b"exif" in data or b"xmp" in data


def _orientation(image: Image.Image) -> int:
    """Return the orientation as far as it is read, 1 to 8; PNG's own `getexif` would decode the pixels for it."""
    try:
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, TypeError, OSError, struct.error):
        raise DataError("its EXIF data are damaged; save it again without them") from None
    return value if value in range(1, 9) else 1


def _deep(image: Image.Image, start: bytes) -> bool:
    return image.mode.startswith("I") or (start.startswith(_PNG) and start[_PNG_BITS] == 16)


def _deep_png(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    import imagecodecs

    pixels = imagecodecs.png_decode(data)
    if pixels.shape[2] in (2, 4):
        return pixels[..., :-1], pixels[..., -1]
    return pixels, None


def _pillow(image: Image.Image, start: bytes, orientation: int) -> Stored:
    alpha = None
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    bits, palette = 8, None
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
        samples = np.asarray(image)
    elif image.mode == "1":
        samples, bits = np.asarray(image, dtype=np.uint8), 1
    elif image.mode.startswith("I"):
        samples, bits = np.asarray(image), 16
    elif image.mode in ("L", "LA", "La"):
        samples = np.asarray(image.convert("L"))
        if start.startswith(_PNG) and start[_PNG_BITS] in (2, 4):
            bits = start[_PNG_BITS]
            samples = samples // (255 // (2**bits - 1))
    else:
        samples = np.asarray(image.convert("RGB"))
    return Stored(
        np.atleast_3d(samples), bits, palette, alpha, orientation=orientation, lossy=image.format in ("JPEG", "MPO")
    )
