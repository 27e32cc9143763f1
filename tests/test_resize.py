"""Sizes by hand, and equality with the libraries whose rules the kinds follow."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detkit.data.resize import ResizeKind, median_short_side, resize_picture, resized_size

KINDS: tuple[ResizeKind, ...] = ("opencv", "torch", "pillow")


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "short_side", "long_side", "half_up", "down"),
    [
        ((480, 640), 800, 1333, (800, 1067), (800, 1066)),  # 640 * 800 / 480 = 1066.67
        ((640, 480), 800, 1333, (1067, 800), (1066, 800)),
        ((400, 1000), 800, 1333, (533, 1333), (533, 1333)),  # the long side caps: 400 * 1.333 = 533.2
        ((100, 100), 50, 80, (50, 50), (50, 50)),
        ((3, 2000), 100, 200, (1, 200), (1, 200)),  # 3 * 0.1 = 0.3: a side is at least 1
        ((101, 202), 101, 500, (101, 202), (101, 202)),
        ((75, 101), 50, 80, (50, 67), (50, 67)),  # 101 * 50 / 75 = 67.33
    ],
)
def test_sizes_by_hand(
    size: tuple[int, int], short_side: int, long_side: int, half_up: tuple[int, int], down: tuple[int, int]
) -> None:
    assert resized_size(*size, short_side, long_side, "opencv") == half_up
    assert resized_size(*size, short_side, long_side, "pillow") == half_up
    assert resized_size(*size, short_side, long_side, "torch") == down


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_have_the_size_that_was_said_and_never_a_longer_side(kind: ResizeKind) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        height, width, short_side, extra = (int(value) for value in rng.integers(1, 90, 4))
        size = resized_size(height, width, short_side, short_side + extra, kind)
        assert 1 <= min(size) <= short_side and max(size) <= short_side + extra
        image = resize_picture(noise(height, width), short_side, short_side + extra, kind)
        assert tuple(image.shape) == (3, *size) and image.is_contiguous()
        assert image.dtype == (torch.float32 if kind == "torch" else torch.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_the_right_size_stays_as_it_is(kind: ResizeKind) -> None:
    picture = noise(40, 60)
    assert np.array_equal(resize_picture(picture, 40, 60, kind).numpy(), picture.transpose(2, 0, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_one_colour_stays_that_colour(kind: ResizeKind) -> None:
    picture = np.full((30, 44, 3), (10, 200, 90), np.uint8)
    for short_side in (17, 71):
        image = resize_picture(picture, short_side, 999, kind).float()
        assert torch.allclose(image, torch.tensor([10.0, 200, 90]).view(3, 1, 1).expand_as(image), atol=1e-4)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (40, 100), (33, 47), (101, 77)])
@pytest.mark.parametrize(("short_side", "long_side"), [(80, 133), (30, 50), (64, 64)])
def test_torch_equals_torchvision(size: tuple[int, int], short_side: int, long_side: int) -> None:
    reference = GeneralizedRCNNTransform(short_side, long_side, [0.0] * 3, [1.0] * 3, size_divisible=1)
    picture = noise(*size)
    image = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float()
    wanted, _ = reference([image])
    assert torch.equal(resize_picture(picture, short_side, long_side, "torch"), wanted.tensors[0])


def test_pillow_equals_pillow() -> None:
    picture = noise(90, 120)
    wanted = np.asarray(Image.fromarray(picture).resize((53, 40), Image.Resampling.BILINEAR))  # 120 * 40 / 90 = 53.33
    assert np.array_equal(resize_picture(picture, 40, 99, "pillow").numpy(), wanted.transpose(2, 0, 1))


def test_opencv_doubles_by_hand() -> None:
    picture = np.repeat(np.array([[0, 100], [0, 100]], np.uint8)[..., None], 3, axis=2)
    # new pixel centres lie at -0.25, 0.25, 0.75, 1.25 of the old ones
    assert resize_picture(picture, 4, 4)[0].tolist() == [[0, 25, 75, 100]] * 4


def test_the_median_of_the_short_sides() -> None:
    assert median_short_side([100, 300, 50], [200, 200, 400]) == 100  # of 100, 200, 50
    assert median_short_side([1000, 2000], [1200, 1500]) == 800
    assert median_short_side([1000, 2000], [1200, 1500], cap=5000) == 1250  # between 1000 and 1500
