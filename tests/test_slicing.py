"""Tiles: the grid by hand, objects on tile borders, and pictures that are no larger than a tile."""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from detkit.predict import Detector
from detkit.slicing import Window, merge_windows, sliced, tiles
from detkit.types import Detect, Detection, Picture
from tests.conftest import Outcome


def found(*rows: tuple[float, float, float, float, int, float]) -> Detection:
    """Detections from rows of x1, y1, x2, y2, label, score."""
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    return {"boxes": table[:, :4], "labels": table[:, 4].long(), "scores": table[:, 5]}


def test_a_grid_by_hand() -> None:
    # 10 px in tiles of 4 that share at least 1: strides of at most 3, so 0, 3, 6; 4 px high: one row
    assert tiles(4, 10, 4, 0.25) == [(0, 0, 4, 4), (3, 0, 7, 4), (6, 0, 10, 4)]
    # 1000 x 700 px, tiles of 640 that share at least 128: strides of at most 512
    corners = [(0, 0, 640, 640), (360, 0, 1000, 640), (0, 60, 640, 700), (360, 60, 1000, 700)]
    assert tiles(700, 1000, 640, 0.2) == corners
    assert tiles(640, 640, 640, 0.2) == [(0, 0, 640, 640)]
    assert tiles(30, 50, 640, 0.2) == [(0, 0, 50, 30)]
    assert tiles(30, 700, 640, 0.2) == [(0, 0, 640, 30), (60, 0, 700, 30)]


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.33, 0.5, 0.9])
@pytest.mark.parametrize(("height", "width", "size"), [(97, 211, 32), (65, 64, 64), (33, 500, 64), (128, 128, 64)])
def test_tiles_cover_each_pixel_and_overlap_as_asked(height: int, width: int, size: int, overlap: float) -> None:
    grid = tiles(height, width, size, overlap)
    covered = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in grid:
        covered[y1:y2, x1:x2] = True
        assert (x2 - x1, y2 - y1) == (min(size, width), min(size, height))
    assert covered.all()
    for low, high, length in ((0, 2, width), (1, 3, height)):
        edges = sorted({(window[low], window[high]) for window in grid})
        assert edges[0][0] == 0 and edges[-1][1] == length
        assert all(before[1] - after[0] >= overlap * size for before, after in pairwise(edges))


PICTURE: Window = (0, 0, 180, 100)
LEFT: Window = (0, 0, 100, 100)
RIGHT: Window = (80, 0, 180, 100)


def boxes_of(detection: Detection) -> list[list[float]]:
    return detection["boxes"].tolist()


def test_a_cut_object_becomes_one_box() -> None:
    # it reaches from 60 to 140: both tiles see a part, the surer one the smaller
    left, right = found((60, 20, 100, 60, 0, 0.6)), found((0, 21, 60, 60, 0, 0.9))
    merged = merge_windows([PICTURE, LEFT, RIGHT], [found(), left, right])
    assert boxes_of(merged) == [[60, 20, 140, 60]]
    assert merged["scores"].tolist() == pytest.approx([0.9])


def test_parts_give_way_to_the_whole_object() -> None:
    left, right = found((60, 20, 100, 60, 0, 0.9)), found((0, 20, 60, 60, 0, 0.8))
    merged = merge_windows([PICTURE, LEFT, RIGHT], [found((61, 20, 141, 60, 0, 0.3)), left, right])
    assert boxes_of(merged) == [[61, 20, 141, 60]]
    assert merged["scores"].tolist() == pytest.approx([0.9])


def test_a_part_that_agrees_with_any_box_of_an_object_belongs_to_it() -> None:
    """IoU 60 / 90 between the two complete boxes; the part, cut at x = 80, agrees with the one that gives way."""
    whole = found((80, 20, 170, 60, 0, 0.9), (80, 20, 140, 60, 0, 0.8))
    merged = merge_windows([PICTURE, LEFT, RIGHT], [whole, found(), found((0, 20, 40, 60, 0, 0.7))])
    assert boxes_of(merged) == [[80, 20, 170, 60]]


def test_a_chain_of_parts_through_three_tiles() -> None:
    windows: list[Window] = [(0, 0, 260, 100), (0, 0, 100, 100), (80, 0, 180, 100), (160, 0, 260, 100)]
    parts = [found(), found((50, 10, 100, 50, 1, 0.5)), found((0, 10, 100, 50, 1, 0.7)), found((0, 10, 60, 50, 1, 0.6))]
    assert boxes_of(merge_windows(windows, parts)) == [[50, 10, 220, 50]]


def test_other_classes_and_other_objects_stay() -> None:
    whole = found((10, 10, 170, 90, 0, 0.9))
    left = found((20, 30, 40, 50, 0, 0.8), (60, 20, 100, 60, 1, 0.7))  # small before large; cut, of another class
    right = found((0, 70, 60, 95, 1, 0.6))  # cut as well, below the other
    merged = merge_windows([PICTURE, LEFT, RIGHT], [whole, left, right])
    assert boxes_of(merged) == [[10, 10, 170, 90], [20, 30, 40, 50], [60, 20, 100, 60], [80, 70, 140, 95]]


def test_an_object_that_several_views_see_whole_is_one_box() -> None:
    views = [found((82, 20, 97, 40, 0, 0.5)), found((83, 20, 97, 40, 0, 0.7)), found((3, 20, 17, 41, 0, 0.9))]
    merged = merge_windows([PICTURE, LEFT, RIGHT], views)
    assert boxes_of(merged) == [[83, 20, 97, 41]]


def test_neighbours_in_the_shared_strip_stay_two() -> None:
    """Whole each, they overlap by 4 of 36 px; what of them lies in both tiles is the same strip."""
    left, right = found((70, 20, 92, 60, 0, 0.9)), found((8, 20, 30, 60, 0, 0.8))
    merged = merge_windows([PICTURE, LEFT, RIGHT], [found(), left, right])
    assert boxes_of(merged) == [[70, 20, 92, 60], [88, 20, 110, 60]]


def test_nothing_found() -> None:
    assert len(merge_windows([PICTURE, LEFT, RIGHT], [found(), found(), found()])["boxes"]) == 0


def bright_boxes(smallest: int) -> Detect:
    """Finds the bright rectangles, class by brightness, that are at least so many px wide or high: exact numbers."""

    def detect(pictures: Sequence[Picture]) -> list[Detection]:
        return [found(*_bright(picture, smallest)) for picture in pictures]

    return detect


def _bright(picture: Picture, smallest: int) -> list[tuple[float, float, float, float, int, float]]:
    rows = []
    for value in np.unique(picture[picture > 0]):
        y, x = np.nonzero(picture[..., 0] == value)
        box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
        if max(box[2] - box[0], box[3] - box[1]) >= smallest:
            rows.append((*map(float, box), int(value), 0.9))
    return rows


def test_boxes_are_those_of_the_picture() -> None:
    picture = np.zeros((300, 500, 3), np.uint8)
    objects = {1: (10, 20, 40, 60), 2: (90, 80, 160, 130), 3: (300, 10, 480, 290), 4: (495, 295, 500, 300)}
    for value, (x1, y1, x2, y2) in objects.items():
        picture[y1:y2, x1:x2] = value
    (merged,) = sliced(bright_boxes(1), 128, 0.25)([picture])
    assert sorted(zip(merged["labels"].tolist(), boxes_of(merged), strict=True)) == [
        (value, list(map(float, box))) for value, box in objects.items()
    ]


def test_batches_of_tiles_change_nothing() -> None:
    asked = []

    def detect(pictures: Sequence[Picture]) -> list[Detection]:
        asked.append(len(pictures))
        return [found((1, 2, 3, 4, 0, 0.5))] * len(pictures)

    sliced(detect, 64, 0.0, batch_size=3)([np.zeros((64, 256, 3), np.uint8)])
    assert asked == [1, 3, 1]


def test_a_picture_no_larger_than_a_tile_gets_the_plain_detections(trained_detector: Detector) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 108, 3), dtype=np.uint8)
    (plain,) = trained_detector([picture])
    (same,) = sliced(trained_detector.detect, 108)([picture])
    assert len(plain["boxes"]) > 0
    assert all(torch.equal(plain[key], same[key]) for key in ("boxes", "labels", "scores"))  # type: ignore[literal-required]


def test_a_real_detector_in_tiles(trained_detector: Detector) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 200, 3), dtype=np.uint8)
    (merged,) = sliced(trained_detector.detect, 64)([picture])
    boxes = merged["boxes"]
    assert len(boxes) > 0
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 200).all() and (boxes[:, 3] <= 90).all()
    assert (merged["scores"].diff() <= 0).all()


def test_eval_with_a_closer_look(trained: Path, command: Callable[..., Outcome]) -> None:
    """Tiles larger than the pictures change no number; smaller ones and mirror images do."""
    low, one = "model.score_threshold=0.01", ("--batch-size", "1")
    runs = [(), ("--slice", "500"), ("--slice", "64", "--tta")]
    done = [command("eval", trained / "last.pth", low, *one, *options, "--json", "-") for options in runs]
    assert [run.status for run in done] == [0, 0, 0], [run.err for run in done]
    plain, same, closer = (json.loads(run.out)["metrics"] for run in done)
    assert plain["AR100"] > 0
    assert same == pytest.approx(plain, abs=1e-9)
    assert closer != plain and closer.keys() == plain.keys()
