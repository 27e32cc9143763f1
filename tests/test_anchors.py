"""Anchors written out by hand: sizes, shapes, centres and their order."""

import pytest
import torch
from torchvision.models.detection import anchor_utils as torchvision_anchors
from torchvision.models.detection.image_list import ImageList

from detkit.models.anchors import AnchorGenerator, cell_anchors, shift_anchors


def test_the_anchors_of_a_cell() -> None:
    # size 32, ratio height / width. 1/4: width 32 / sqrt(1/4) = 64, height 32 * sqrt(1/4) = 16, area 1024 = 32^2
    expected = [[-32, -8, 32, 8], [-16, -16, 16, 16], [-8, -32, 8, 32]]
    assert cell_anchors(32, (0.25, 1, 4)).tolist() == expected


def test_the_default_ratios_keep_the_area() -> None:
    cell = cell_anchors(64, (0.5, 1.0, 2.0))
    width, height = (cell[:, 2:] - cell[:, :2]).unbind(1)
    torch.testing.assert_close(width * height, torch.full((3,), 4096.0))
    torch.testing.assert_close(height / width, torch.tensor([0.5, 1.0, 2.0]))
    torch.testing.assert_close(cell[0], torch.tensor([-45.2548, -22.6274, 45.2548, 22.6274]))


def test_order_is_level_row_cell_ratio() -> None:
    anchors = AnchorGenerator((4, 8), sizes=(8, 16), ratios=(1, 4))([(2, 2), (1, 1)])
    # size 8: ratio 1 is 8 x 8 (half 4), ratio 4 is 4 wide, 16 high (halves 2, 8). Size 16: twice that
    expected = [
        [-4, -4, 4, 4],  # level 0, row 0, cell 0: centre (0, 0)
        [-2, -8, 2, 8],
        [0, -4, 8, 4],  # cell 1: centre x = 1 * 4, so 4 - 4 .. 4 + 4
        [2, -8, 6, 8],
        [-4, 0, 4, 8],  # row 1, cell 0: centre (0, 4)
        [-2, -4, 2, 12],
        [0, 0, 8, 8],  # row 1, cell 1: centre (4, 4)
        [2, -4, 6, 12],
        [-8, -8, 8, 8],  # level 1
        [-4, -16, 4, 16],
    ]
    assert anchors.tolist() == expected


def test_centres_lie_at_stride_times_index() -> None:
    anchors = shift_anchors(cell_anchors(32, (1,)), (2, 3), 16)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert centres.tolist() == [[0, 0], [16, 0], [32, 0], [0, 16], [16, 16], [32, 16]]


def test_repeated_strides_get_sizes_by_index() -> None:
    anchors = AnchorGenerator((4, 8, 16, 16, 16), ratios=(1,))([(1, 1)] * 5)
    assert (anchors[:, 2] - anchors[:, 0]).tolist() == [32, 64, 128, 256, 512]


@pytest.mark.parametrize("sizes", [(32,), (32, 64, 128), ()])
def test_a_wrong_number_of_sizes_names_the_key(sizes: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"model\.rpn\.anchor_sizes"):
        AnchorGenerator((4, 8), sizes)


def test_the_last_result_is_kept_and_another_size_is_not_mixed_up() -> None:
    generator = AnchorGenerator((4,), ratios=(1,))
    first = generator([(2, 3)])
    assert generator([(2, 3)]) is first
    other = generator([(3, 2)])
    assert other.shape == first.shape
    assert not torch.equal(other, first)
    assert torch.equal(generator([(2, 3)]), first)


def test_anchors_are_no_part_of_the_state_dict_and_a_map_may_be_empty() -> None:
    generator = AnchorGenerator((4, 8))
    assert generator.per_cell == 3
    assert not generator.state_dict()
    assert generator([(0, 5), (1, 1)]).shape == (3, 4)


def test_rounded_anchors_and_cells_by_hand() -> None:
    # size 8, ratio 4: 4 x 16, whole already. Size 6, ratio 0.5: width 6 / sqrt(0.5) = 8.49, height 6 * sqrt(0.5) = 4.24
    assert AnchorGenerator((4,), (8,), (4,), rounded=True)([(1, 1)]).tolist() == [[-2, -8, 2, 8]]
    assert AnchorGenerator((4,), (6,), (0.5,), rounded=True)([(1, 1)]).tolist() == [[-4, -2, 4, 2]]
    # halves of 5 are 2.5, which torch rounds to the even 2
    assert AnchorGenerator((4,), (5,), (1,), rounded=True)([(1, 1)]).tolist() == [[-2, -2, 2, 2]]
    # 3 columns of 4 px are 12 px; the next level's 2 columns lie 12 // 2 = 6 px apart, its 1 row 4 // 1
    plain, rounded = (AnchorGenerator((4, 8), (8, 16), (1,), rounded=flag)([(1, 3), (1, 2)]) for flag in (False, True))
    centres = [((anchors[:, 0] + anchors[:, 2]) / 2).tolist() for anchors in (plain, rounded)]
    assert centres == [[0, 4, 8, 0, 8], [0, 4, 8, 0, 6]]


def test_rounded_anchors_are_torchvisions() -> None:
    sizes, ratios = (32, 64, 128), (0.5, 1.0, 2.0)
    theirs = torchvision_anchors.AnchorGenerator(tuple((size,) for size in sizes), (ratios,) * 3)
    images = ImageList(torch.zeros(1, 3, 64, 96), [(64, 96)])
    # 96 / 4 = 24 columns, then 12; a net that rounds up gives 13 where 12 would do
    shapes = [(16, 24), (8, 13), (5, 6)]
    (expected,) = theirs(images, [torch.zeros(1, 1, *shape) for shape in shapes])
    assert torch.equal(AnchorGenerator((4, 8, 16), sizes, ratios, rounded=True)(shapes), expected)
