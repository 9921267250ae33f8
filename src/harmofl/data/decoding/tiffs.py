"""Exact reading of TIFF through tifffile for all bit depths, planes and byte orders; other files are errors."""

from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from harmofl.data.decoding.stored_pixels import Header, Stored
from harmofl.errors import DataError

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MEANINGS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "RGB"}
"""Supported photometric interpretations; YCbCr (6) is decoded to RGB if the compression is JPEG."""
_WHITE_IS_ZERO, _PALETTE, _CMYK, _YCBCR = 0, 3, 5, 6
_PLANES = {"grey": 1, "RGB": 3, "palette": 1, "CMYK": 4}
_JPEG = (6, 7, 33007, 34892)
_ASSOCIATED = 1  # premultiplied alpha
_FLOAT = 3
_FORMATS = (1, 2, _FLOAT)  # unsigned, signed, floats
_MOST_BITS = 16


def is_tiff(start: bytes) -> bool:
    """Return True for a TIFF, by its first four bytes."""
    return start[:4] in _MAGIC


def read_tiff_header(file: BinaryIO) -> Header:
    """Read a TIFF's header.

    Raises:
        DataError: if it holds several images, or its photometric interpretation is not supported.
    """
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        page, meaning = _page(tiff)
        alpha = page.samplesperpixel > _planes(page, meaning)
        depth = "16 bit" if np.max(page.bitspersample) > 8 else "8 bit"
        if page.sampleformat == _FLOAT:
            depth = f"float{np.max(page.bitspersample)}"
        kind = f"{meaning}{' with alpha' if alpha else ''}, {depth}"
        return Header((page.imagelength, page.imagewidth), meaning != "grey", kind, alpha, _orientation(page))


def _page(tiff: Any) -> tuple[Any, str]:
    """Return the only image and the meaning of its numbers."""
    page = tiff.pages[0]
    pages = max(len(tiff.pages), int((tiff.imagej_metadata or {}).get("images", 1)))
    if pages > 1:
        raise DataError(f"must be one image, got a TIFF of {pages} pages; split it into files or use NIfTI")
    if page.imagedepth != 1:
        raise DataError(f"must be one image, got {page.imagedepth} planes in depth; split it into files or use NIfTI")
    meaning = _MEANINGS.get(int(page.photometric))
    if not meaning or (page.photometric == _YCBCR and page.compression not in _JPEG):
        raise DataError(f"colours must be grey, RGB, CMYK or a palette, got {page.photometric.name}; convert the file")
    extra = page.samplesperpixel - _planes(page, meaning)
    if extra < 0 or (extra > 1 and meaning == "grey"):
        raise DataError(f"must have {_PLANES[meaning]} planes to be {meaning}, got {page.samplesperpixel}; split them")
    return page, meaning


def _planes(page: Any, meaning: str) -> int:
    return 3 if page.photometric == _YCBCR else _PLANES[meaning]


def _orientation(page: Any) -> int:
    tag = page.tags.get("Orientation")
    return int(tag.value) if tag and int(tag.value) in range(1, 9) else 1


def read_stored_tiff(file: BinaryIO) -> Stored:
    """Decode a TIFF.

    Raises:
        DataError: as in `read_tiff_header`, or if it is truncated, too large, or its numbers have too many bits.
    """
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        page, meaning = _page(tiff)
        _demand_exact(page, tiff.filehandle.size)
        pixels = page.asarray(maxworkers=1).reshape(page.shaped)  # planes apart, depth, rows, columns, planes together
        samples = pixels[:, 0, ..., 0].transpose(1, 2, 0) if page.planarconfig == 2 else pixels[0, 0]
        planes, bits = _planes(page, meaning), page.bitspersample
        alpha = samples[..., planes] if samples.shape[2] > planes else None
        if alpha is not None and _ASSOCIATED in page.extrasamples and ((alpha > 0) & (alpha < 2**bits - 1)).any():
            raise DataError("half-transparent pixels must not be premultiplied by alpha; save without alpha")
        samples = samples[..., :planes]
        return Stored(
            _rgb(samples) if page.photometric == _CMYK else _unsigned(samples, bits),
            min(bits, _MOST_BITS),
            _palette(page.colormap) if page.photometric == _PALETTE else None,
            alpha,
            white_is_zero=page.photometric == _WHITE_IS_ZERO,
            orientation=_orientation(page),
            lossy=page.compression in _JPEG,
        )


def _demand_exact(page: Any, size: int) -> None:
    """Raise DataError unless the numbers can be read exactly and completely, within Pillow's limit of pixels."""
    if np.ndim(page.bitspersample):
        raise DataError(f"all planes must have the same number of bits, got {page.bitspersample}; convert the file")
    if page.sampleformat not in _FORMATS:
        raise DataError(f"pixels must be numbers, got {page.dtype or 'an unknown type'}; convert the file")
    if page.photometric == _WHITE_IS_ZERO and page.bitspersample > _MOST_BITS:
        raise DataError(f"pixels whose 0 is white must be 8 or 16 bit, got {page.bitspersample}; convert the file")
    if (most := Image.MAX_IMAGE_PIXELS) and page.imagelength * page.imagewidth > 2 * most:
        raise DataError(
            f"must have at most {2 * most:,} pixels, got {page.imagelength * page.imagewidth:,}; cut it into tiles"
        )
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not parts or any(count == 0 or start + count > size for start, count in parts):
        raise DataError("cannot be read (the file ends before its pixels); restore it or leave it out")


def _unsigned(samples: np.ndarray, bits: int) -> np.ndarray:
    """Return whole numbers as unsigned samples of at most 16 bits, and floats unchanged."""
    if samples.dtype.kind == "f":
        return samples
    if samples.dtype == bool:
        return samples.astype(np.uint8)
    low, high = int(samples.min()), int(samples.max())
    if low < 0 or high > 2**_MOST_BITS - 1 or (bits <= 8 and samples.dtype.kind == "i"):
        raise DataError(f"pixels must be 8 or 16 bit, got {low}..{high} ({samples.dtype}); convert the file")
    return samples.astype(np.uint8 if bits <= 8 else np.uint16)


def _palette(colours: np.ndarray) -> np.ndarray:
    """Return the (N, 3) uint8 colours of a colour map of 16 bits; some programs write 8 bits."""
    eight_bit: np.ndarray = (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)
    return eight_bit.T


def _rgb(inks: np.ndarray) -> np.ndarray:
    if inks.dtype != np.uint8:
        raise DataError(f"CMYK must have 8 bits, got {inks.dtype}; convert the file to RGB")
    return np.asarray(Image.fromarray(np.ascontiguousarray(inks), "CMYK").convert("RGB"))
