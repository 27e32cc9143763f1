"""Box arithmetic by hand."""

import torch
from torch import Tensor

from detkit.boxes import (
    box_area,
    clip_and_scale_back,
    clip_boxes,
    pairwise_coverage,
    pairwise_intersection,
    pairwise_iou,
    scale_boxes,
)

NONE = torch.zeros(0, 4)


def boxes(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_area_is_width_times_height_without_an_extra_pixel() -> None:
    # 3 x 4, one square pixel, a line of no width
    assert box_area(boxes((1, 2, 4, 6), (0, 0, 1, 1), (5, 0, 5, 9))).tolist() == [12, 1, 0]


def test_intersection_overlap_touch_and_apart() -> None:
    a = boxes((0, 0, 4, 4))
    b = boxes((2, 1, 6, 3), (4, 0, 8, 4), (10, 10, 12, 12), (-9, -9, -1, -1))
    # overlap is x 2..4, y 1..3; boxes that touch share an edge and no area
    assert pairwise_intersection(a, b).tolist() == [[4, 0, 0, 0]]


def test_iou_by_hand() -> None:
    a = boxes((0, 0, 4, 4), (0, 0, 2, 2))
    b = boxes((0, 0, 4, 4), (2, 2, 6, 6), (1, 0, 3, 2))
    # (0,0): equal. (0,1): 4 / (16 + 16 - 4). (0,2): 4 / 16, inside. (1,0): 4 / 16. (1,1): touch. (1,2): 2 / (4 + 4 - 2)
    expected = torch.tensor([[1, 4 / 28, 0.25], [0.25, 0, 1 / 3]])
    torch.testing.assert_close(pairwise_iou(a, b), expected)
    torch.testing.assert_close(pairwise_iou(b, a), expected.T)


def test_iou_of_two_empty_boxes_is_zero_and_no_nan() -> None:
    point = boxes((3, 3, 3, 3))
    assert pairwise_iou(point, point).tolist() == [[0]]


def test_coverage_is_a_share_of_the_first_box() -> None:
    # a has 8 px, of which 4 lie in the first region and all in the second; the other way round the share is 4 / 100
    a = boxes((0, 0, 4, 2))
    regions = boxes((2, 0, 12, 10), (0, 0, 100, 100), (50, 50, 60, 60))
    torch.testing.assert_close(pairwise_coverage(a, regions), torch.tensor([[0.5, 1.0, 0.0]]))
    torch.testing.assert_close(pairwise_coverage(regions[:1], a), torch.tensor([[0.04]]))


def test_coverage_of_an_empty_box_is_zero() -> None:
    assert pairwise_coverage(boxes((1, 1, 1, 1)), boxes((0, 0, 9, 9))).tolist() == [[0]]


def test_clip_cuts_at_the_edges_of_the_picture() -> None:
    given = boxes((-3, -2, 5, 6), (90, 40, 120, 60), (10, 10, 20, 20), (200, 200, 300, 300))
    expected = boxes((0, 0, 5, 6), (90, 40, 100, 50), (10, 10, 20, 20), (100, 50, 100, 50))
    torch.testing.assert_close(clip_boxes(given, height=50, width=100), expected)


def test_scale_is_by_y_and_x() -> None:
    torch.testing.assert_close(scale_boxes(boxes((1, 2, 3, 4)), scale_y=10, scale_x=2), boxes((2, 20, 6, 40)))


def test_scaling_back_to_the_original_picture() -> None:
    # 100 x 200 (height x width) was 50 x 50: twice as high, four times as wide, and cut at 100 and 200
    found = clip_and_scale_back(boxes((1, 2, 3, 4), (10, 10, 60, 60)), (50, 50), (100, 200))
    torch.testing.assert_close(found, boxes((4, 4, 12, 8), (40, 20, 200, 100)))


def test_there_and_back_again() -> None:
    given = boxes((3, 4, 30, 40), (0, 0, 64, 48))
    there = scale_boxes(given, 100 / 48, 200 / 64)
    torch.testing.assert_close(clip_and_scale_back(there, (100, 200), (48, 64)), given)


def test_no_boxes() -> None:
    some = boxes((0, 0, 1, 1), (0, 0, 2, 2))
    assert box_area(NONE).shape == (0,)
    for function in (pairwise_intersection, pairwise_iou, pairwise_coverage):
        assert function(NONE, some).shape == (0, 2)
        assert function(some, NONE).shape == (2, 0)
        assert function(NONE, NONE).shape == (0, 0)
    assert clip_boxes(NONE, 5, 5).shape == (0, 4)
    assert clip_and_scale_back(NONE, (1, 2), (3, 4)).shape == (0, 4)
