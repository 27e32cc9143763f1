"""Any common kind of picture becomes RGB; orientation follows EXIF and the stated size; broken files are named."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from detkit.data.coco import load_coco
from detkit.data.layout import find_layout
from detkit.data.pictures import read_picture

HEIGHT, WIDTH = 24, 40


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    """Smooth, so that JPEG keeps it, and different in every corner and channel."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack((x * 6, y * 10, 255 - x * 3 - y * 3), axis=2).astype(np.uint8)


def distance(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_lossless_formats_are_exact(tmp_path: Path, picture: NDArray[np.uint8], suffix: str) -> None:
    Image.fromarray(picture).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(read_picture(tmp_path / f"a.{suffix}"), picture)
    assert np.array_equal(read_picture(tmp_path / f"a.{suffix}", (HEIGHT, WIDTH)), picture)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_keep_the_channel_order(tmp_path: Path, picture: NDArray[np.uint8], suffix: str) -> None:
    Image.fromarray(picture).save(tmp_path / f"a.{suffix}", quality=95)
    assert distance(read_picture(tmp_path / f"a.{suffix}"), picture) < 4


def test_grey_becomes_three_equal_channels(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    Image.fromarray(picture[..., 0]).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png"), np.repeat(picture[..., :1], 3, axis=2))


def test_alpha_is_left_out(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    alpha = np.arange(HEIGHT * WIDTH, dtype=np.uint32).reshape(HEIGHT, WIDTH, 1).astype(np.uint8)
    Image.fromarray(np.concatenate((picture, alpha), axis=2)).save(tmp_path / "rgba.png")
    assert np.array_equal(read_picture(tmp_path / "rgba.png"), picture)
    Image.fromarray(np.concatenate((picture[..., :1], alpha), axis=2), "LA").save(tmp_path / "la.png")
    assert np.array_equal(read_picture(tmp_path / "la.png"), np.repeat(picture[..., :1], 3, axis=2))


@pytest.mark.parametrize("transparency", [None, 3])
def test_a_palette_is_looked_up(tmp_path: Path, picture: NDArray[np.uint8], transparency: int | None) -> None:
    image = Image.fromarray(picture).quantize(16)
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    assert np.array_equal(read_picture(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    dots = np.indices((HEIGHT, WIDTH)).sum(axis=0) % 2 == 0
    Image.fromarray(dots).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png")[..., 1], dots * np.uint8(255))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path, picture: NDArray[np.uint8], suffix: str) -> None:
    deep = picture.astype(np.uint16) * 256 + 77
    assert cv2.imwrite(str(tmp_path / f"c.{suffix}"), deep[..., ::-1])
    assert cv2.imwrite(str(tmp_path / f"g.{suffix}"), deep[..., 0])
    assert np.array_equal(read_picture(tmp_path / f"c.{suffix}"), picture)
    assert np.array_equal(read_picture(tmp_path / f"g.{suffix}"), np.repeat(picture[..., :1], 3, axis=2))


def test_cmyk_is_converted_as_pillow_does(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture).convert("CMYK").save(path, quality=98)
    with Image.open(path) as image:
        assert image.mode == "CMYK"
        assert distance(read_picture(path), np.asarray(image.convert("RGB"))) < 3
    assert distance(read_picture(path), picture) < 6


def save_oriented(path: Path, picture: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Save with an EXIF orientation; returns the picture upright, as Pillow has it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(path, exif=exif, **({"quality": 95} if path.suffix != ".png" else {}))
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_without_a_stated_size(
    tmp_path: Path, picture: NDArray[np.uint8], orientation: int, suffix: str
) -> None:
    upright = save_oriented(tmp_path / f"a.{suffix}", picture, orientation)
    assert upright.shape[:2] == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    assert distance(read_picture(tmp_path / f"a.{suffix}"), upright) < 2


def test_orientation_is_applied_only_where_the_stated_size_asks_for_it(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    path = tmp_path / "a.jpg"
    upright = save_oriented(path, picture, 6)
    assert distance(read_picture(path, (WIDTH, HEIGHT)), upright) < 2
    assert distance(read_picture(path, (HEIGHT, WIDTH)), picture) < 4
    save_oriented(path, picture, 3)  # half a turn keeps the size: boxes are for the pixels as stored
    assert distance(read_picture(path, (HEIGHT, WIDTH)), picture) < 4


@pytest.mark.parametrize("orientation", [1, 6])
def test_another_size_is_refused(tmp_path: Path, picture: NDArray[np.uint8], orientation: int) -> None:
    save_oriented(tmp_path / "a.jpg", picture, orientation)
    with pytest.raises(ValueError, match=r"a\.jpg is 40 x 24 px.*50 x 30"):
        read_picture(tmp_path / "a.jpg", (30, 50))


def test_a_turned_size_without_orientation_is_refused(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png is 40 x 24 px.*24 x 40"):
        read_picture(tmp_path / "a.png", (WIDTH, HEIGHT))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ValueError, match=rf"cut\.{suffix}"):
        read_picture(path)


def test_what_follows_the_end_of_a_picture_does_no_harm(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture).save(path, quality=95)
    path.write_bytes(path.read_bytes() + b"appended by some camera")
    assert distance(read_picture(path), picture) < 4


@pytest.mark.parametrize("data", [b"", b"hello", b"<html></html>", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_files_that_are_no_pictures_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "odd.jpg").write_bytes(data)
    with pytest.raises(ValueError, match=r"odd\.jpg"):
        read_picture(tmp_path / "odd.jpg")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no picture .*gone\.jpg"):
        read_picture(tmp_path / "gone.jpg")
    with pytest.raises(ValueError, match=str(tmp_path)):
        read_picture(tmp_path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_small_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(png)
    with pytest.raises(ValueError, match=r"bomb\.png.*megapixels"):
        read_picture(tmp_path / "bomb.png")


@pytest.mark.parametrize("name", ["roadsigns", "bccd", "coco-mini"])
def test_real_pictures_look_as_pillow_reads_them(real_data: Path, name: str) -> None:
    split = find_layout(real_data / name)[1]
    index = load_coco(split.annotations, split.images)
    for i in range(0, len(index), max(len(index) // 12, 1)):
        picture = read_picture(index.path(i), (int(index.heights[i]), int(index.widths[i])))
        with Image.open(io.BytesIO(index.path(i).read_bytes())) as image:
            assert distance(picture, np.asarray(image.convert("RGB"))) < 1.5
