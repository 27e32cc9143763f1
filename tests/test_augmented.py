"""Test-time augmentation: mirror images map back, votes by hand, and the mirrored picture gets the mirrored result."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from detkit.augmented import augmented, mirror, vote
from detkit.predict import Detector
from detkit.types import Detection, Picture
from tests.test_slicing import bright_boxes


def picture_of(*boxes: tuple[int, int, int, int]) -> Picture:
    """Black, 120 x 90 px, with bright rectangles."""
    picture = np.zeros((90, 120, 3), np.uint8)
    for value, (x1, y1, x2, y2) in enumerate(boxes, start=1):
        picture[y1:y2, x1:x2] = value
    return picture


def test_the_mirror_image_maps_back_exactly() -> None:
    boxes = ((10, 20, 40, 60), (50, 5, 119, 33), (0, 70, 3, 90))
    find = bright_boxes(1)
    (plain,) = find([picture_of(*boxes)])
    (flipped,) = find([np.ascontiguousarray(picture_of(*boxes)[:, ::-1])])
    assert plain["boxes"].tolist() == [list(map(float, box)) for box in boxes]
    assert not torch.equal(plain["boxes"], flipped["boxes"])
    assert torch.equal(mirror(flipped, 120)["boxes"], plain["boxes"])
    assert torch.equal(mirror(mirror(plain, 120), 120)["boxes"], plain["boxes"])


def test_all_views_agree_where_the_detector_is_exact() -> None:
    boxes = ((10, 20, 40, 60), (50, 5, 119, 33), (0, 70, 3, 90))
    seen = []

    def detect(pictures: Sequence[Picture], scale: float = 1.0) -> list[Detection]:
        seen.append(scale)
        return bright_boxes(1)(pictures)

    (merged,) = augmented(detect, scales=(0.5, 1.0))([picture_of(*boxes)])
    torch.testing.assert_close(merged["boxes"], torch.tensor(boxes, dtype=torch.float32))
    assert merged["scores"].tolist() == pytest.approx([0.9] * 3)
    assert seen == [0.5, 0.5, 1.0, 1.0]


def test_where_no_two_boxes_may_agree_each_stays_as_it_is() -> None:
    boxes, labels = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]]), torch.zeros(2, dtype=torch.int64)
    found: Detection = {"boxes": boxes, "labels": labels, "scores": torch.tensor([0.9, 0.8])}
    assert torch.equal(vote([found], iou=1.0)["boxes"], boxes)


def test_a_real_detector_finds_the_mirrored_boxes_in_the_mirrored_picture(trained_detector: Detector) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 108, 3), dtype=np.uint8)
    picture[20:60, 30:70] = (200, 30, 30)
    look = augmented(trained_detector.detect)
    (plain,), (flipped,) = look([picture]), look([np.ascontiguousarray(picture[:, ::-1])])
    assert len(plain["boxes"]) > 0
    back = mirror(flipped, 108)
    assert torch.equal(plain["labels"], back["labels"])
    torch.testing.assert_close(plain["boxes"], back["boxes"], atol=1e-2, rtol=0)
    torch.testing.assert_close(plain["scores"], back["scores"], atol=1e-4, rtol=0)
