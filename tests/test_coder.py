"""Box deltas: encoding and decoding are each other's inverse, and numbers by hand."""

import math

import pytest
import torch
from torch import Tensor

from detkit.models.coder import BoxCoder


def random_boxes(count: int) -> Tensor:
    low = torch.rand(count, 2) * 100
    return torch.cat((low, low + 1 + torch.rand(count, 2) * 60), dim=1)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (1.0, 2.0, 3.0, 4.0)])
def test_decode_undoes_encode(weights: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    coder, boxes, anchors = BoxCoder(weights), random_boxes(200), random_boxes(200)
    deltas = coder.encode(boxes, anchors)
    torch.testing.assert_close(coder.decode(deltas, anchors), boxes, atol=1e-3, rtol=1e-5)
    small = torch.randn(200, 4)
    torch.testing.assert_close(coder.encode(coder.decode(small, anchors), anchors), small, atol=1e-3, rtol=1e-3)


def test_by_hand() -> None:
    anchor = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    box = torch.tensor([[4.0, 5.0, 24.0, 15.0]])
    # centres (5, 10) and (14, 10); sizes (10, 20) and (20, 10): dx = 9 / 10, dy = 0, dw = ln 2, dh = ln 1/2
    expected = torch.tensor([[0.9, 0.0, math.log(2), -math.log(2)]])
    torch.testing.assert_close(BoxCoder().encode(box, anchor), expected)
    weighted = BoxCoder((10, 10, 5, 5)).encode(box, anchor)
    torch.testing.assert_close(weighted, expected * torch.tensor([10.0, 10.0, 5.0, 5.0]))


def test_zero_deltas_change_nothing() -> None:
    anchors = random_boxes(5)
    torch.testing.assert_close(BoxCoder().decode(torch.zeros(5, 4), anchors), anchors)


def test_growth_is_limited() -> None:
    # 16 px grow to 1000 px at most, around the same centre (8, 8), and nothing overflows
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    grown = BoxCoder().decode(torch.tensor([[0.0, 0.0, 1e4, 1e4]]), anchor)
    torch.testing.assert_close(grown, torch.tensor([[-492.0, -492.0, 508.0, 508.0]]))


def test_weights_apply_before_the_limit() -> None:
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    box = BoxCoder((1, 1, 5, 5)).decode(torch.tensor([[0.0, 0.0, 5 * math.log(4), 0.0]]), anchor)
    torch.testing.assert_close(box, torch.tensor([[-24.0, 0.0, 40.0, 16.0]]))


def test_low_precision_deltas_are_decoded_in_float32() -> None:
    # bfloat16 cannot hold 1301
    anchor = torch.tensor([[1301.0, 1301.0, 1303.0, 1303.0]])
    box = BoxCoder().decode(torch.zeros(1, 4, dtype=torch.bfloat16), anchor)
    assert box.dtype == torch.float32
    assert torch.equal(box, anchor)


def test_any_leading_shape_and_none() -> None:
    anchors = random_boxes(6).view(2, 3, 4)
    assert BoxCoder().decode(torch.zeros(2, 3, 4), anchors).shape == (2, 3, 4)
    empty = torch.zeros(0, 4)
    assert BoxCoder().encode(empty, empty).shape == (0, 4)
    assert BoxCoder().decode(empty, empty).shape == (0, 4)
