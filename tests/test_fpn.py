"""FPN: sizes, the top-down sum by hand, norm and the extra level."""

import math

import pytest
import torch
from torch import Tensor, nn

from detkit.models.fpn import FPN


def maps(channels: tuple[int, ...], strides: tuple[int, ...], height: int, width: int) -> list[Tensor]:
    return [
        torch.randn(2, count, math.ceil(height / stride), math.ceil(width / stride))
        for count, stride in zip(channels, strides, strict=True)
    ]


def transparent(levels: int, strides: tuple[int, ...], **settings: object) -> FPN:
    """An FPN of one channel whose convolutions change nothing, so that only the top-down sum is left."""
    fpn = FPN((1,) * levels, strides, out_channels=1, **settings)  # type: ignore[arg-type]
    for module in (*fpn.lateral, *fpn.output):
        conv = module[0]
        nn.init.zeros_(conv.weight)
        conv.weight.data[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = 1
    return fpn


@pytest.mark.parametrize("size", [(33, 47), (64, 96), (100, 31), (1, 1)])
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (4, 8, 16, 16, 16), (4, 8, 16), (16,)])
def test_sizes_stay_those_of_the_backbone(size: tuple[int, int], strides: tuple[int, ...]) -> None:
    channels = tuple(range(3, 3 + len(strides)))
    features = maps(channels, strides, *size)
    fpn = FPN(channels, strides, out_channels=8)
    levels = fpn(features)
    assert fpn.channels == (8,) * len(levels)
    assert fpn.strides == (*strides, 2 * strides[-1])
    for level, stride in zip(levels, fpn.strides, strict=True):
        assert level.shape == (2, 8, math.ceil(size[0] / stride), math.ceil(size[1] / stride))


def test_repeated_strides_only_add() -> None:
    strides = (4, 8, 16, 16, 16)
    features = [torch.full_like(level, 10.0**i) for i, level in enumerate(maps((1,) * 5, strides, 64, 48))]
    levels = transparent(5, strides, extra_level="none")(features)
    assert [level.unique().tolist() for level in levels] == [[11111], [11110], [11100], [11000], [10000]]


def test_a_coarser_cell_is_added_to_the_cells_it_covers() -> None:
    coarse = torch.tensor([[1.0, 2, 3], [4, 5, 6]])[None, None]
    levels = transparent(2, (4, 8), extra_level="none")([torch.zeros(1, 1, 3, 5), coarse])
    assert levels[0][0, 0].tolist() == [[1, 1, 2, 2, 3], [1, 1, 2, 2, 3], [4, 4, 5, 5, 6]]
    assert torch.equal(levels[1], coarse)


def test_extra_level_by_pool_takes_every_second_cell() -> None:
    last = torch.arange(15.0).view(1, 1, 3, 5)
    levels = transparent(1, (32,))([last])
    assert levels[1][0, 0].tolist() == [[0, 2, 4], [10, 12, 14]]


def test_extra_level_by_convolution_and_none() -> None:
    features = maps((3, 4), (16, 32), 70, 90)
    by_conv = FPN((3, 4), (16, 32), 8, extra_level="conv")
    assert by_conv(features)[2].shape == (2, 8, 2, 2)
    assert isinstance(by_conv.extra, nn.Conv2d)
    without = FPN((3, 4), (16, 32), 8, extra_level="none")
    assert len(without(features)) == len(without.strides) == len(without.channels) == 2


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)])
def test_norm_takes_the_place_of_the_bias(norm: str, kind: type[nn.Module]) -> None:
    fpn = FPN((3, 4), (16, 32), 8, norm=norm)
    assert sum(isinstance(module, kind) for module in fpn.modules()) == 4
    assert all(module.bias is None for module in fpn.modules() if isinstance(module, nn.Conv2d))
    assert all(level.isfinite().all() for level in fpn(maps((3, 4), (16, 32), 64, 64)))


@pytest.mark.parametrize("extra", ["pool", "conv", "none"])
def test_gradients_reach_every_parameter(extra: str) -> None:
    fpn = FPN((3, 4, 5), (8, 16, 32), 8, extra_level=extra)  # type: ignore[arg-type]
    torch.stack([level.square().sum() for level in fpn(maps((3, 4, 5), (8, 16, 32), 64, 64))]).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in fpn.parameters())


def test_another_number_of_levels_is_refused() -> None:
    with pytest.raises(ValueError):
        FPN((3, 4), (16, 32), 8)(maps((3,), (16,), 64, 64))
