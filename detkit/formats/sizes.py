"""The size of a picture from the head of its file, where annotations do not say it."""

import warnings
from pathlib import Path

from PIL import Image

from detkit.data.pictures import EXIF_ORIENTATION, TURNS


def picture_size(path: Path) -> tuple[int, int] | None:
    """(height, width) px of a picture as its EXIF orientation shows it; None where the file is no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                width, height = image.size
                orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError):
        return None
    transposed = TURNS.get(orientation, (False,))[0]
    return (width, height) if transposed else (height, width)
