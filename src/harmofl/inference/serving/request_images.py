"""Decoding of the image in a request, only in memory."""

import io

from PIL import Image

from harmofl.data.decoding.images import QUIET, read_photograph
from harmofl.errors import DataError
from harmofl.inference.prediction.image_reader import Picture

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/tiff": "TIFF"}


class TooLargeError(DataError):
    """Image with more bytes or pixels than allowed."""


def decode(data: bytes, kind: str, pixels: int) -> Picture:
    """Decode the content of a file of the content type `kind`, one of `FORMATS`.

    Raises:
        TooLargeError: if the image has more pixels than `pixels`.
        DataError: if the image is of another type, or damaged.
    """
    try:
        with QUIET, Image.open(io.BytesIO(data), formats=[FORMATS[kind]]) as image:
            size = image.width * image.height
    except Image.DecompressionBombError:
        raise TooLargeError(f"the image must have at most {pixels:,} pixels; make it smaller") from None
    except Exception:  # decoders raise any error for a damaged header
        raise DataError(f"the body must be an image of the type {kind}, but cannot be read as such") from None
    if size > pixels:
        raise TooLargeError(f"the image must have at most {pixels:,} pixels, got {size:,}; make it smaller")
    try:
        with QUIET:
            return Picture(read_photograph(io.BytesIO(data)))
    except DataError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"the image cannot be read ({reason}); save it again") from None
