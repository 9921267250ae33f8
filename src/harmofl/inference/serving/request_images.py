"""An image out of a request, in memory alone."""

import io

from PIL import Image

from harmofl.data.decoding.images import quiet, read_photograph
from harmofl.errors import DataError
from harmofl.inference.prediction.image_reader import Picture

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/tiff": "TIFF"}


class TooLargeError(DataError):
    """An image has more bytes or pixels than are taken."""


def decode(data: bytes, kind: str, pixels: int) -> Picture:
    """Decode an image.

    Args:
        data: the file.
        kind: its content type, one of `FORMATS`.
        pixels: so many it may have at most.

    Raises:
        TooLargeError: if it has more.
        DataError: if it is none of that kind, or damaged.
    """
    try:
        with quiet(), Image.open(io.BytesIO(data), formats=[FORMATS[kind]]) as image:
            size = image.width * image.height
    except Image.DecompressionBombError:
        raise TooLargeError(f"the image must have at most {pixels:,} pixels; make it smaller") from None
    except Exception:  # decoders raise anything over a damaged header
        raise DataError(f"the body must be an image of the type {kind}, but cannot be read as one") from None
    if size > pixels:
        raise TooLargeError(f"the image must have at most {pixels:,} pixels, got {size:,}; make it smaller")
    try:
        with quiet():
            return Picture(read_photograph(io.BytesIO(data)))
    except DataError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"the image cannot be read ({reason})") from None
