"""Matching and sampling by hand."""

import pytest
import torch
from torch import Tensor

from detkit.models.matching import BACKGROUND, IGNORED, Matcher, sample

NONE = torch.zeros(0, 4)


def strip(*ends: float) -> Tensor:
    """Boxes from x = 0 to each end, 10 high: against strip(10) their overlap is end / 10."""
    return torch.tensor([[0.0, 0.0, end, 10.0] for end in ends]).view(-1, 4)


def test_positive_between_and_negative_with_exact_borders() -> None:
    # overlaps with the object: 1.0, 0.75 = positive, 0.74, 0.25 = between, 0.24
    matches = Matcher(0.75, 0.25, keep_best=False)(strip(10, 7.5, 7.4, 2.5, 2.4), strip(10))
    assert matches.tolist() == [0, 0, IGNORED, IGNORED, BACKGROUND]


def test_the_object_of_the_highest_overlap_wins() -> None:
    objects = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10]])
    boxes = torch.tensor([[0.0, 0, 9, 10], [3, 0, 12, 10], [0, 0, 11, 10]])
    # the third overlaps the first by 10 / 11, the second by 9 / 12
    assert Matcher(0.5, 0.5, keep_best=False)(boxes, objects).tolist() == [0, 1, 0]


def test_keep_best_gives_each_object_its_best_boxes_also_in_a_tie() -> None:
    # nothing reaches 0.7: the best are the second and third, which are equal; the fourth is merely background
    boxes, objects = strip(4, 6, 6, 1), strip(10)
    assert Matcher(0.7, 0.3, keep_best=False)(boxes, objects).tolist() == [IGNORED] * 3 + [BACKGROUND]
    assert Matcher(0.7, 0.3, keep_best=True)(boxes, objects).tolist() == [IGNORED, 0, 0, BACKGROUND]


def test_keep_best_also_below_the_negative_threshold_but_not_without_overlap() -> None:
    objects = torch.tensor([[0.0, 0, 10, 10], [500, 500, 510, 510]])
    assert Matcher(0.7, 0.3, keep_best=True)(strip(1, 2), objects).tolist() == [BACKGROUND, 0]


def test_half_covered_by_an_ignore_region_is_neither_object_nor_background() -> None:
    region = torch.tensor([[0.0, 0, 5, 10], [100, 100, 200, 200]])
    # shares inside the first region: 1, 0.5, 5 / 11
    assert Matcher(0.7, 0.3, keep_best=True)(strip(4, 10, 11), NONE, region).tolist() == [IGNORED, IGNORED, BACKGROUND]


def test_an_ignore_region_also_takes_back_objects() -> None:
    matches = Matcher(0.7, 0.3, keep_best=True)(strip(10, 30), strip(10), torch.tensor([[0.0, 0, 8, 10]]))
    assert matches.tolist() == [IGNORED, IGNORED]  # 30: overlap with the object 1/3, between


def test_no_objects_and_no_boxes() -> None:
    matcher = Matcher(0.7, 0.3, keep_best=True)
    assert matcher(strip(1, 2), NONE).tolist() == [BACKGROUND, BACKGROUND]
    assert matcher(strip(1, 2), NONE, NONE).tolist() == [BACKGROUND, BACKGROUND]
    assert matcher(NONE, strip(10), strip(10)).tolist() == []
    assert matcher(NONE, NONE).dtype == torch.int64


def mixed(positive: int, negative: int, ignored: int = 5) -> Tensor:
    parts = [torch.full((n,), value) for n, value in ((ignored, IGNORED), (positive, 3), (negative, BACKGROUND))]
    return torch.cat(parts)


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        (50, 50, (4, 12)),  # 16 with a quarter of objects
        (2, 50, (2, 14)),  # background fills up for missing objects
        (50, 3, (4, 3)),  # objects do not fill up for missing background
        (0, 50, (0, 16)),
        (50, 0, (4, 0)),
        (0, 0, (0, 0)),
    ],
)
def test_sample_counts(positive: int, negative: int, expected: tuple[int, int]) -> None:
    matches = mixed(positive, negative)
    [drawn] = sample([matches], 16, 0.25)
    assert (len(drawn[0]), len(drawn[1])) == expected
    assert (matches[drawn[0]] == 3).all()
    assert (matches[drawn[1]] == BACKGROUND).all()
    assert len(torch.cat(drawn).unique()) == sum(expected)


def test_sampling_depends_on_the_seed_alone() -> None:
    matches = mixed(50, 50)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(torch.cat(sample([matches], 16, 0.5)[0]).tolist())
    assert draws[0] == draws[1] != draws[2]


def test_every_box_can_be_drawn() -> None:
    torch.manual_seed(0)
    seen = torch.cat([torch.cat(sample([mixed(4, 4, 0)], 4, 0.5)[0]) for _ in range(50)])
    assert seen.unique().tolist() == list(range(8))


def test_pictures_are_sampled_each_by_itself() -> None:
    (first, background), (second, rest) = sample([mixed(2, 50), mixed(50, 1)], 16, 0.25)
    assert [len(part) for part in (first, background, second, rest)] == [2, 14, 4, 1]
    assert sample([], 16, 0.25) == []
