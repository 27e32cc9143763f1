"""RoI pooling against torchvision's operator: values and gradients, over all options and odd RoIs."""

import pytest
import torch
from torch import Tensor
from torchvision import ops

from detkit.models.roi_pool import _in_32_bits, pool_levels, roi_align

ODD_ROIS = (
    (0, 0, 0, 40, 30),
    (1, 3.3, 4.4, 17.7, 30.1),
    (2, -20, -10, 15, 12),  # begins outside the picture
    (0, 30, 20, 90, 80),  # ends outside
    (1, 200, 200, 240, 230),  # wholly outside
    (1, -90, -90, -40, -50),
    (2, 12, 8, 12, 8),  # no size
    (2, 12, 8, 12, 30),  # no width
    (0, 5, 5, 5.5, 5.25),  # smaller than a cell
    (1, 0, 0, 48, 32),  # the whole picture
    (1, 44, 30, 20, 10),  # corners swapped
)


def odd_rois(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(ODD_ROIS, dtype=dtype)


def compare(features: Tensor, rois: Tensor, size: int, scale: float, ratio: int, aligned: bool) -> None:
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    got = roi_align(ours, rois, size, scale, ratio, aligned)
    expected = ops.roi_align(theirs, rois, size, scale, ratio, aligned)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    pull = torch.randn(expected.shape)
    (got * pull).sum().backward()
    (expected * pull).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 3, 0, -1])
@pytest.mark.parametrize(("size", "scale"), [(3, 0.25), (7, 0.25), (2, 1.0), (1, 0.125)])
def test_equals_torchvision(aligned: bool, ratio: int, size: int, scale: float) -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 5, 8, 12).contiguous(memory_format=torch.channels_last)
    compare(features, odd_rois(), size, scale, ratio, aligned)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [2, 0])
@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_roi(aligned: bool, ratio: int, count: int) -> None:
    compare(torch.randn(1, 4, 5, 6), torch.tensor([[0, 2.0, 1, 21, 17]])[:count], 3, 0.25, ratio, aligned)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [2, 0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_maps_of_one_cell(aligned: bool, ratio: int, shape: tuple[int, int]) -> None:
    compare(torch.randn(3, 4, *shape), odd_rois(), 3, 1 / 32, ratio, aligned)


@pytest.mark.parametrize("ratio", [2, 0])
def test_empty_rois_alone(ratio: int) -> None:
    compare(torch.randn(1, 4, 6, 6), torch.tensor([[0, 3.0, 3, 3, 3], [0, 4.0, 4, 4, 9]]), 3, 1.0, ratio, True)


def test_by_hand_on_a_ramp() -> None:
    # the map holds its own x; a bin from 2 to 4 cells has its centre at 3, less the half cell of `aligned`
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    roi = torch.tensor([[0, 2.0, 2, 6, 6]])
    assert roi_align(ramp, roi, 2, 1.0, 2, aligned=True)[0, 0].tolist() == [[2.5, 4.5], [2.5, 4.5]]
    assert roi_align(ramp, roi, 2, 1.0, 2, aligned=False)[0, 0].tolist() == [[3, 5], [3, 5]]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [2, 0])
def test_gradcheck(aligned: bool, ratio: int) -> None:
    features = torch.randn(3, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    rois = odd_rois(torch.float64)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, rois, 2, 0.1, ratio, aligned), (features,))


SCALES = (1 / 4, 1 / 8, 1 / 16)


def pyramid() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(3, 6, size, size + 1, requires_grad=True) for size in (12, 6, 3)]


def pool_one_by_one(features: list[Tensor], rois: Tensor, levels: Tensor, ratio: int, aligned: bool) -> Tensor:
    """torchvision's operator level by level, put in place."""
    pooled = torch.zeros(len(rois), 6, 3, 3)
    for level, (feature, scale) in enumerate(zip(features, SCALES, strict=True)):
        chosen = torch.where(levels == level)[0]
        pooled = pooled.index_put((chosen,), ops.roi_align(feature, rois[chosen], 3, scale, ratio, aligned))
    return pooled


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [2, 0])
@pytest.mark.parametrize("levels", [(0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1), (1,) * 11, (2, 0) * 5 + (0,)])
def test_levels_equal_torchvision_level_by_level(aligned: bool, ratio: int, levels: tuple[int, ...]) -> None:
    rois, level = odd_rois(), torch.tensor(levels)
    ours, theirs = pyramid(), pyramid()
    got = pool_levels(ours, rois, level, SCALES, 3, ratio, aligned)
    expected = pool_one_by_one(theirs, rois, level, ratio, aligned)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    pull = torch.randn(got.shape)
    (got * pull).sum().backward()
    (expected * pull).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        wanted = torch.zeros_like(mine) if other.grad is None else other.grad
        torch.testing.assert_close(mine.grad, wanted, atol=1e-4, rtol=1e-4)


def test_the_result_is_channels_last_and_keeps_the_order_of_the_rois() -> None:
    features, rois = pyramid(), odd_rois()
    level = torch.tensor([2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    pooled = pool_levels(features, rois, level, SCALES, 3, 2, True)
    assert pooled.is_contiguous(memory_format=torch.channels_last)
    order = torch.randperm(len(rois))
    shuffled = pool_levels(features, rois[order], level[order], SCALES, 3, 2, True)
    torch.testing.assert_close(shuffled, pooled[order])


@pytest.mark.parametrize("ratio", [2, 0])
def test_bfloat16_maps(ratio: int) -> None:
    exact = torch.randn(3, 16, 8, 12)
    coarse = exact.bfloat16().requires_grad_()
    got = roi_align(coarse, odd_rois(), 3, 0.25, ratio, True)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), roi_align(exact, odd_rois(), 3, 0.25, ratio, True), atol=0.05, rtol=0.02)
    got.float().sum().backward()
    reference = exact.clone().requires_grad_()
    roi_align(reference, odd_rois(), 3, 0.25, ratio, True).sum().backward()
    assert coarse.grad is not None
    torch.testing.assert_close(coarse.grad.float(), reference.grad, atol=0.05, rtol=0.03)


def test_cells_are_numbered_in_32_bits_while_they_fit() -> None:
    cells = torch.tensor([0, 5])
    assert _in_32_bits(cells, 2**31 - 1).dtype == torch.int32
    assert _in_32_bits(cells, 2**31).dtype == torch.int64
