"""Which level a box is pooled from (FPN, equation 1), by hand."""

import pytest
import torch

from detkit.models.roi_head import LevelPooler

BELOW = 0.01  # px under a border


def levels(pooler: LevelPooler, *sides: float) -> list[int]:
    """Levels of squares with the given sides, somewhere in the picture."""
    boxes = torch.tensor([[7.0, 11.0, 7.0 + side, 11.0 + side] for side in sides])
    return pooler.levels(boxes).tolist()


@pytest.mark.parametrize(
    ("strides", "borders"),
    [
        ((4, 8, 16, 32), (112, 224, 448)),
        ((4, 8, 16, 16, 16), (112, 224, 448, 896)),  # DetNet-59: by index, not by stride
        ((4, 8, 16), (112, 224)),
        ((8, 16, 32), (224, 448)),
        ((16,), ()),
    ],
)
def test_borders(strides: tuple[int, ...], borders: tuple[int, ...]) -> None:
    pooler = LevelPooler(strides)
    for level, border in enumerate(borders):
        assert levels(pooler, border - BELOW, border) == [level, level + 1]
    assert levels(pooler, 1, 2000) == [0, len(strides) - 1]


def test_detnet_intervals_by_hand() -> None:
    pooler = LevelPooler((4, 8, 16, 16, 16))
    sides = (0.5, 111, 112, 223, 224, 447, 448, 895, 896, 5000)
    assert levels(pooler, *sides) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_the_mean_of_the_sides_counts() -> None:
    # sqrt(56 * 224) = 112, sqrt(56 * 223) < 112
    boxes = torch.tensor([[0.0, 0, 56, 224], [0, 0, 224, 56], [0, 0, 56, 223]])
    assert LevelPooler((4, 8, 16, 32)).levels(boxes).tolist() == [1, 1, 0]


def test_the_canonical_size_moves_all_borders() -> None:
    # k = 4 at 64 px, so the borders are 32, 64, 128
    pooler = LevelPooler((4, 8, 16, 32), canonical_size=64)
    assert levels(pooler, 31.9, 32, 63.9, 64, 127.9, 128) == [0, 1, 1, 2, 2, 3]


def test_a_single_level_takes_everything() -> None:
    assert levels(LevelPooler((16,)), 1, 100, 1000) == [0, 0, 0]


def test_empty_and_inverted_boxes_go_to_the_finest_level() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 500], [500, 500, 5, 5]])
    assert LevelPooler((4, 8, 16, 32)).levels(boxes).tolist() == [0, 0, 0]
    none = LevelPooler((4, 8)).levels(torch.zeros(0, 4))
    assert none.shape == (0,)
    assert none.dtype == torch.int64


def test_each_box_is_pooled_from_its_level_with_the_stride_of_that_level() -> None:
    # every map holds its own index and, in the second channel, the pixel x of the cell's centre
    strides = (4, 8, 16, 16, 16)
    maps = []
    for index, stride in enumerate(strides):
        x = torch.arange(1024 // stride).float() * stride
        maps.append(torch.stack((torch.full_like(x, index), x)).view(1, 2, 1, -1).expand(1, 2, 1024 // stride, -1))
    sides = [64.0, 128.0, 256.0, 512.0, 920.0]
    boxes = torch.tensor([[16.0, 16.0, 16 + side, 16 + side] for side in sides])
    extra = torch.full((1, 2, 8, 8), 99.0)
    pooled = LevelPooler(strides, size=1, sampling_ratio=2)([*maps, extra], [boxes])
    assert pooled[:, 0].flatten().tolist() == [0, 1, 2, 3, 4]
    # the middle of the box, less half a cell
    middle = torch.tensor([16 + side / 2 - stride / 2 for side, stride in zip(sides, strides, strict=True)])
    torch.testing.assert_close(pooled[:, 1].flatten(), middle)


def test_pictures_of_a_batch_keep_their_boxes() -> None:
    maps = [torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8)]
    box = torch.tensor([[4.0, 4, 12, 12]])
    pooled = LevelPooler((4,), size=2)(maps, [box, torch.zeros(0, 4), box.repeat(2, 1)])
    assert pooled.shape == (3, 1, 2, 2)
    assert pooled[:, 0, 0, 0].tolist() == [1, 3, 3]
    assert LevelPooler((4,), size=2)(maps, [torch.zeros(0, 4)] * 3).shape == (0, 1, 2, 2)
