"""Reading picture files: any common format and depth becomes uint8 RGB, and a broken file is an error that names it."""

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from detkit.memory import is_out_of_memory

EXIF_ORIENTATION = 0x0112
HEAD = 256 * 1024  # an Exif block lies before the pixels: within the first 64 KiB of a JPEG file, close to it elsewhere
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})  # of picture files in folders

# EXIF orientation (CIPA DC-008, 4.6.4 A) -> what puts it right: transpose? then flip up-down? flip left-right?
TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def read_picture(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The picture as uint8 RGB (H, W, 3); 16-bit, grey, palette, RGBA and CMYK are converted, transparency is left out.

    EXIF orientation is applied, unless the picture as it is stored has the `size` (height, width) that the annotations
    state. Raises ValueError, which names the file, when it is missing, truncated, no picture, or of another size.
    """
    return decode_picture(_read_bytes(path), path, size)


def decode_picture(data: bytes, name: str | Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The picture that the bytes of a file hold, as `read_picture` gives it; `name` is for the errors."""
    picture, orientation = _decode_stored(data, name)
    turn = TURNS.get(orientation, (False, False, False))
    stored = picture.shape[:2]
    if stored == size:
        return picture
    turned = stored[::-1] if turn[0] else stored
    if size is not None and turned != size:
        raise ValueError(
            f"{name} is {stored[1]} x {stored[0]} px (width x height), but its annotations are for"
            f" {size[1]} x {size[0]}; bring back the original picture, or scale the boxes and correct the JSON"
        )
    return _turn(picture, *turn)


def read_stored(path: Path) -> tuple[NDArray[np.uint8], int]:
    """The picture as it is stored, uint8 RGB (H, W, 3), and its EXIF orientation, 1 to 8: 1 is upright.

    Raises ValueError as `read_picture` does.
    """
    return _decode_stored(_read_bytes(path), path)


def has_more(path: Path) -> bool:
    """Whether a file holds more pictures than the first, which is the one that is read: an animation, or more pages.

    The pairs of a JPEG file (MPO), which cameras write, are one picture here.
    """
    try:
        with Image.open(path, formats=("GIF", "WEBP", "PNG", "TIFF")) as image:
            return bool(getattr(image, "is_animated", False))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _decode_stored(data: bytes, name: str | Path) -> tuple[NDArray[np.uint8], int]:
    if not data:
        raise ValueError(f"{name} is an empty file, not a picture")
    _refuse_huge(name, data)
    return _to_rgb(_decode(name, data), name), _orientation(data)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"there is no picture {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read the picture {path}: {error.strerror}") from None


def _refuse_huge(name: str | Path, data: bytes) -> None:
    """Stop at a few bytes that would become gigabytes; only the header is read. Pillow's limit, 179 megapixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.open(io.BytesIO(data)).close()
    except Image.DecompressionBombError:
        raise ValueError(f"{name} has more than 179 megapixels; scale it down before use") from None
    except (OSError, SyntaxError, ValueError):
        pass  # not for Pillow to judge: decoding says what is wrong


def _decode(name: str | Path, data: bytes) -> NDArray[np.generic]:
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if is_out_of_memory(error):
            raise MemoryError(f"out of memory when reading the picture {name}") from None
        raise ValueError(f"cannot read the picture {name}: {error}") from None
    # OpenCV fills what is missing at the end of a JPEG with grey; Pillow, which is slower, does not.
    if picture is None or not _has_end(data):
        fault = _pillow_fault(data)
        if picture is None or fault:
            raise ValueError(f"cannot read the picture {name}: {fault or 'the format is not supported'}")
    return picture


def _has_end(data: bytes) -> bool:
    """Whether a JPEG or PNG file ends in its end marker; other formats: OpenCV refuses truncated ones by itself."""
    if data.startswith(b"\xff\xd8"):
        return data.rstrip(b"\0\r\n").endswith(b"\xff\xd9")
    if data.startswith(b"\x89PNG"):
        return b"IEND" in data[-64:]
    return True


def _pillow_fault(data: bytes) -> str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except UnidentifiedImageError:
        return "it is not a picture"
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders meet in a broken file
        return str(error)
    return ""


def _to_rgb(picture: NDArray[np.generic], name: str | Path) -> NDArray[np.uint8]:
    if picture.dtype == np.uint16:
        picture = np.right_shift(picture.astype(np.uint16, copy=False), 8)
    elif picture.dtype != np.uint8:
        raise ValueError(f"{name} has pixels of type {picture.dtype}; pictures of 8 or 16 bits are supported")
    channels = 1 if picture.ndim == 2 else picture.shape[2]
    if channels not in (1, 3, 4):
        raise ValueError(f"{name} has {channels} channels; grey, RGB and RGBA pictures are supported")
    code = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}[channels]
    return cv2.cvtColor(picture.astype(np.uint8, copy=False), code).astype(np.uint8, copy=False)


def _orientation(data: bytes) -> int:
    """EXIF orientation 1..8 of a JPEG, PNG or WebP file; OpenCV has turned a TIFF by its own tag already."""
    if data.startswith((b"II*\0", b"MM\0*")):
        return 1
    tagged = data if data.startswith(b"RIFF") else data[:HEAD]
    if not any(mark in tagged for mark in (b"Exif\0", b"eXIf", b"EXIF")):
        return 1
    try:
        with Image.open(io.BytesIO(data)) as image:
            return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError):
        return 1  # a damaged tag is no reason to refuse the pixels


def _turn(picture: NDArray[np.uint8], transpose: bool, up_down: bool, left_right: bool) -> NDArray[np.uint8]:
    if transpose:
        picture = picture.transpose(1, 0, 2)
    if up_down:
        picture = picture[::-1]
    if left_right:
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)
