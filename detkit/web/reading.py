"""Pictures that strangers send: judged by their first bytes, their size known before a pixel is decoded."""

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from detkit.data.pictures import decode_picture

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MAX_BYTES = 32 * 2**20  # of a picture's file
MAX_PIXELS = 50_000_000  # of a picture, 150 MB of RGB
MAX_PICTURES = 200  # at once


def read_upload(data: bytes, name: str) -> NDArray[np.uint8]:
    """The picture (H, W, 3) RGB of an uploaded file. Raises ValueError, naming it, for what the page does not take."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name} has {len(data) / 2**20:.0f} MiB; up to {MAX_BYTES / 2**20:.0f} MiB are taken")
    width, height = _size(data, name)
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} would unpack to {width} x {height} px, {width * height / 1e6:,.0f} megapixels; up to"
            f" {MAX_PIXELS / 1e6:.0f} are taken: scale it down"
        )
    return decode_picture(data, name)


def read_file(path: Path) -> bytes:
    """The bytes of an uploaded file, and no more of them than tell that it is too large."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height as the header states them."""
    Image.init()  # else Pillow knows some of the formats only after it has met others
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.size
    except Image.DecompressionBombError:
        raise ValueError(
            f"{name} would unpack to more than 179 megapixels; up to {MAX_PIXELS / 1e6:.0f} are taken: scale it down"
        ) from None
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not a picture: JPEG, PNG, WebP, BMP and TIFF are taken") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for a damaged header
        raise ValueError(f"{name} cannot be read: {error}") from None
