"""Box losses: identities and numbers by hand."""

import math

import pytest
import torch
from torch import Tensor

from detkit.models.coder import BoxCoder
from detkit.models.losses import BoxLoss, giou_loss, paired_giou

KINDS = ("smooth_l1", "l1", "giou")
ANCHORS = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 25.0, 45.0]])


def box(*row: float) -> Tensor:
    return torch.tensor([row])


def test_giou_of_equal_boxes_is_one() -> None:
    torch.testing.assert_close(paired_giou(ANCHORS, ANCHORS), torch.ones(2))
    assert giou_loss(ANCHORS, ANCHORS).item() == pytest.approx(0)


def test_giou_by_hand() -> None:
    # apart: union 2, hull 4 x 1, so 0 - (4 - 2) / 4
    assert paired_giou(box(0, 0, 1, 1), box(3, 0, 4, 1)).tolist() == [-0.5]
    # overlap 1, union 4 + 4 - 1 = 7, hull 9: 1 / 7 - 2 / 9
    assert paired_giou(box(0, 0, 2, 2), box(1, 1, 3, 3)).item() == pytest.approx(1 / 7 - 2 / 9)
    # one inside the other: the hull is the union, so it is the plain overlap 4 / 16
    assert paired_giou(box(0, 0, 4, 4), box(1, 1, 3, 3)).item() == pytest.approx(0.25)


def test_giou_is_symmetric_and_approaches_minus_one() -> None:
    a, b = box(0, 0, 1, 1), box(1e4, 1e4, 1e4 + 1, 1e4 + 1)
    assert paired_giou(a, b).item() == paired_giou(b, a).item() == pytest.approx(-1, abs=1e-6)


def test_giou_loss_is_the_sum() -> None:
    a, b = box(0, 0, 1, 1).repeat(3, 1), box(3, 0, 4, 1).repeat(3, 1)
    assert giou_loss(a, b).item() == pytest.approx(3 * 1.5)


def test_l1_and_smooth_l1_by_hand() -> None:
    # true box = anchor, so the wanted deltas are 0 and the errors are 0.5, -2, 0, 1
    deltas, anchor = box(0.5, -2, 0, 1), ANCHORS[:1]
    assert BoxLoss("l1", BoxCoder())(deltas, anchor, anchor).item() == pytest.approx(3.5)
    # beta 1: 0.5 * 0.25 + (2 - 0.5) + 0 + (1 - 0.5)
    assert BoxLoss("smooth_l1", BoxCoder())(deltas, anchor, anchor).item() == pytest.approx(0.125 + 1.5 + 0.5)
    # beta 0.1, all errors beyond it: |e| - 0.05 for three of them
    assert BoxLoss("smooth_l1", BoxCoder(), beta=0.1)(deltas, anchor, anchor).item() == pytest.approx(3.5 - 0.15)


def test_l1_compares_weighted_deltas() -> None:
    # twice as wide around the same centre: dw = ln 2, times the weight 5
    loss = BoxLoss("l1", BoxCoder((10, 10, 5, 5)))(torch.zeros(1, 4), ANCHORS[:1], box(-5, 0, 15, 10))
    assert loss.item() == pytest.approx(5 * math.log(2))


def test_giou_decodes_the_deltas() -> None:
    # the anchor 10 x 10 moved by its own width: disjoint and adjacent, hull = union
    loss = BoxLoss("giou", BoxCoder())(box(1, 0, 0, 0), ANCHORS[:1], ANCHORS[:1])
    assert loss.item() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_perfect_deltas_cost_nothing_and_sums_add_up(kind: str) -> None:
    coder, boxes = BoxCoder((10, 10, 5, 5)), ANCHORS + torch.tensor([1.0, 2.0, 3.0, 5.0])
    loss = BoxLoss(kind, coder)
    assert loss(coder.encode(boxes, ANCHORS), ANCHORS, boxes).item() == pytest.approx(0, abs=1e-5)
    deltas = torch.full((2, 4), 0.3)
    each = [loss(deltas[i : i + 1], ANCHORS[i : i + 1], boxes[i : i + 1]).item() for i in range(2)]
    assert loss(deltas, ANCHORS, boxes).item() == pytest.approx(sum(each))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_and_point_downhill(kind: str) -> None:
    loss, boxes = BoxLoss(kind, BoxCoder()), ANCHORS + torch.tensor([1.0, 2.0, 3.0, 5.0])
    deltas = torch.tensor([[0.4, -0.3, 0.5, -0.5], [50.0, 50.0, 90.0, -90.0]], requires_grad=True)
    value = loss(deltas, ANCHORS, boxes)
    value.backward()
    assert deltas.grad is not None
    assert deltas.grad.isfinite().all()
    assert deltas.grad[0].abs().sum() > 0
    with torch.no_grad():
        assert loss(deltas - 1e-3 * deltas.grad, ANCHORS, boxes) < value


@pytest.mark.parametrize("kind", KINDS)
def test_no_boxes_cost_nothing(kind: str) -> None:
    deltas = torch.zeros(0, 4, requires_grad=True)
    value = BoxLoss(kind, BoxCoder())(deltas, torch.zeros(0, 4), torch.zeros(0, 4))
    value.backward()
    assert value.item() == 0


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="smooth_l1, l1, giou, got 'l2'"):
        BoxLoss("l2", BoxCoder())
