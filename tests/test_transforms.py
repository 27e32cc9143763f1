"""Boxes move with the pixels, and a transform is a function of its seed."""

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from detkit.data.transforms import build_transform

H, W = 40, 60
BOXES = np.array([[5, 8, 15, 28], [30, 10, 60, 40], [0, 0, 4, 4]], np.float32)
LABELS = np.array([2, 0, 1])
IGNORE = np.array([[20, 0, 30, 10]], np.float32)


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    """Noise in which each box is a rectangle of its own brightness, so that boxes can be found again."""
    picture = np.random.default_rng(0).integers(0, 50, (H, W, 3), np.uint8)
    for value, (x1, y1, x2, y2) in zip((100, 150, 200, 250), (*BOXES, *IGNORE), strict=True):
        picture[int(y1) : int(y2), int(x1) : int(x2)] = value
    return picture


def run(picture: NDArray[np.uint8], seed: int = 0, boxes: Any = BOXES, labels: Any = LABELS, **steps: float) -> Any:
    transform = build_transform(**{"flip": 0, "vertical_flip": 0, "colour": 0, "crop": 0, **steps})
    assert transform is not None
    return transform(picture, boxes, labels, IGNORE, seed)


def test_nothing_to_do_is_none() -> None:
    assert build_transform(0, 0, 0, 0) is None


def test_flips_by_hand(picture: NDArray[np.uint8]) -> None:
    flipped, boxes, labels, ignore = run(picture, flip=1)
    assert np.array_equal(flipped, picture[:, ::-1])
    assert boxes == pytest.approx(np.array([[45, 8, 55, 28], [0, 10, 30, 40], [56, 0, 60, 4]]), abs=1e-3)
    assert labels.tolist() == [2, 0, 1] and ignore == pytest.approx(np.array([[30, 0, 40, 10]]), abs=1e-3)
    assert boxes.dtype == np.float32
    flipped, boxes, _, ignore = run(picture, vertical_flip=1)
    assert np.array_equal(flipped, picture[::-1])
    assert boxes[0] == pytest.approx([5, 12, 15, 32], abs=1e-3)
    assert ignore == pytest.approx(np.array([[20, 30, 30, 40]]), abs=1e-3)


@pytest.mark.parametrize("steps", [{"flip": 1}, {"vertical_flip": 1}, {"flip": 1, "vertical_flip": 1}])
def test_flipping_twice_changes_nothing(picture: NDArray[np.uint8], steps: dict[str, float]) -> None:
    transform = build_transform(**{"flip": 0, "vertical_flip": 0, "colour": 0, "crop": 0, **steps})
    assert transform is not None
    again = transform(*transform(picture, BOXES, LABELS, IGNORE, 1), 2)
    assert np.array_equal(again[0], picture) and again[2].tolist() == LABELS.tolist()
    assert again[1] == pytest.approx(BOXES, abs=1e-3) and again[3] == pytest.approx(IGNORE, abs=1e-3)


def test_crops_move_boxes_with_their_pixels_and_drop_what_is_hardly_visible(picture: NDArray[np.uint8]) -> None:
    kept, sizes = [], set()
    for seed in range(60):
        cut, boxes, labels, ignore = run(picture, seed, crop=1)
        height, width = cut.shape[:2]
        assert H / 2 <= height <= H and W / 2 <= width <= W
        sizes.add((height, width))
        shown = dict(zip(labels.tolist(), boxes, strict=True))
        for label, value, box in zip(LABELS.tolist(), (100, 150, 200), BOXES, strict=True):
            ys, xs = np.nonzero((cut == value).all(axis=2))
            visible = len(ys) / ((box[2] - box[0]) * (box[3] - box[1]))
            if abs(visible - 0.3) > 1e-4:  # exactly 0.3 occurs here, and rounding decides it
                assert (label in shown) == (visible > 0.3)
            if label in shown:
                assert shown[label] == pytest.approx([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], abs=1e-3)
        assert len(ignore) == int((cut == 250).all(axis=2).any())  # an ignore region stays as long as it is seen
        kept.append(len(boxes))
    assert len(sizes) > 30 and min(kept) < 3 and max(kept) == 3


def test_colour_leaves_boxes_alone(picture: NDArray[np.uint8]) -> None:
    changed, boxes, labels, _ = run(picture, colour=1)
    assert not np.array_equal(changed, picture) and changed.dtype == np.uint8 and changed.shape == picture.shape
    assert boxes == pytest.approx(BOXES, abs=1e-3) and labels.tolist() == [2, 0, 1]


def test_the_seed_alone_decides(picture: NDArray[np.uint8]) -> None:
    steps = {"flip": 0.5, "vertical_flip": 0.5, "colour": 0.5, "crop": 0.5}
    transform, other = build_transform(**steps), build_transform(**steps)
    assert transform is not None and other is not None
    first = [transform(picture, BOXES, LABELS, IGNORE, seed) for seed in range(12)]
    np.random.seed(9)
    for seed in reversed(range(12)):
        for again in (other, transform, pickle.loads(pickle.dumps(transform))):
            result = again(picture, BOXES, LABELS, IGNORE, seed)
            assert all(np.array_equal(a, b) for a, b in zip(first[seed], result, strict=True))
    assert len({result[0].tobytes() for result in first}) > 6


def test_a_picture_without_objects(picture: NDArray[np.uint8]) -> None:
    transform = build_transform(1, 1, 1, 1)
    assert transform is not None
    none = np.zeros((0, 4), np.float32)
    _, boxes, labels, ignore = transform(picture, none, np.zeros(0, np.int64), none, 3)
    assert boxes.shape == (0, 4) and labels.shape == (0,) and ignore.shape == (0, 4)
    assert boxes.dtype == np.float32 and labels.dtype == np.int64


def test_the_picture_that_came_in_is_not_written_to(picture: NDArray[np.uint8]) -> None:
    before, boxes = picture.copy(), BOXES.copy()
    for seed in range(5):
        run(picture, seed, flip=1, vertical_flip=1, colour=1, crop=1)
    assert np.array_equal(picture, before) and np.array_equal(boxes, BOXES)


def test_albumentations_is_imported_when_needed_and_asks_no_network() -> None:
    code = (
        "import os, sys; from detkit.data.transforms import build_transform; build_transform(0, 0, 0, 0);"
        "assert 'albumentations' not in sys.modules; build_transform(1, 0, 0, 0);"
        "assert 'albumentations' in sys.modules and os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
