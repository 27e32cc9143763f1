"""Convolutions in tiles against their definition."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detkit import winograd
from detkit.winograd import convolve, weight_gradient

# One cell; fewer than a tile; whole tiles and parts of them; phases of dilated maps that differ in size.
SIZES = [((1, 1), 1), ((1, 5), 1), ((4, 4), 1), ((7, 9), 1), ((2, 2), 2), ((9, 5), 2), ((8, 16), 2), ((10, 13), 3)]


def drawn(*shape: int, layout: torch.memory_format = torch.channels_last) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).contiguous(memory_format=layout)


def test_one_object_by_hand() -> None:
    """A single 1 paints the filter, turned by 180 degrees, around itself."""
    maps = torch.zeros(1, 1, 5, 6)
    maps[0, 0, 1, 4] = 1
    weight = torch.arange(1.0, 10).view(1, 1, 3, 3)
    painted = convolve(maps, weight, torch.tensor([10.0]))[0, 0] - 10
    expected = torch.zeros(5, 6)
    expected[0:3, 3:6] = torch.tensor([[9.0, 8, 7], [6, 5, 4], [3, 2, 1]])
    torch.testing.assert_close(painted, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("size", "dilation"), SIZES)
def test_convolution_and_gradient_are_pytorchs(
    size: tuple[int, int], dilation: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    maps, weight, bias = (
        drawn(3, 7, *size, layout=layout),
        drawn(5, 7, 3, 3, layout=layout),
        drawn(1, 5, 1, 1).flatten(),
    )
    weight.requires_grad_()
    expected = F.conv2d(maps, weight, bias, padding=dilation, dilation=dilation)
    wanted = drawn(*expected.shape, layout=layout)
    expected.backward(wanted)
    with torch.no_grad():
        found = convolve(maps, weight, bias, dilation)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(weight_gradient(maps, wanted, dilation), weight.grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("numbers", [1, 36 * 4 * 4 * 7, 36 * 4 * 4 * 7 * 5])
def test_blocks_of_any_size_give_the_same(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of tiles at once, some rows of a picture, some pictures: 13 rows of 4 cells, 3 pictures."""
    torch.manual_seed(0)
    maps, weight, wanted = drawn(3, 7, 50, 15), drawn(2, 7, 3, 3), drawn(3, 2, 50, 15)
    whole = convolve(maps, weight, None), weight_gradient(maps, wanted)
    monkeypatch.setattr(winograd, "BLOCK", numbers)
    parts = convolve(maps, weight, None), weight_gradient(maps, wanted)
    for part, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-11)


def test_rounding_is_a_millionth() -> None:
    """Error of float32 relative to the result, 128 channels behind a ReLU; PyTorch's sums have 3e-7 and 2e-7."""
    torch.manual_seed(0)
    maps, weight = drawn(1, 128, 48, 48).relu(), 0.05 * drawn(128, 128, 3, 3)
    exact = F.conv2d(maps, weight, padding=1)
    single = convolve(maps.float(), weight.float(), None)
    assert float((single - exact).norm() / exact.norm()) < 1e-6
    wanted = drawn(1, 128, 48, 48)
    exact = weight_gradient(maps, wanted)
    single = weight_gradient(maps.float(), wanted.float())
    assert float((single - exact).norm() / exact.norm()) < 2e-6
