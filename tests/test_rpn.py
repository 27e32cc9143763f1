"""RPN: proposals and losses by hand on small maps, and on features of a tiny detector."""

import math

import pytest
import torch
from torch import Tensor, nn

from detkit.models.anchors import AnchorGenerator
from detkit.models.matching import Matcher
from detkit.models.rpn import RPN, ProposalCounts, RPNHead
from detkit.types import Target
from tests.tiny_detector import target


def make_rpn(strides: tuple[int, ...] = (8, 16), **settings: object) -> RPN:
    torch.manual_seed(0)
    anchors = AnchorGenerator(strides, tuple(2.0 * stride for stride in strides), (0.5, 1, 2))
    counts = ProposalCounts(40, 20)
    options = {"train_counts": counts, "test_counts": counts, "samples": 16} | settings
    return RPN(RPNHead(4, anchors.per_cell), anchors, Matcher(0.7, 0.3, keep_best=True), **options)  # type: ignore[arg-type]


def features(pictures: int = 2, height: int = 64, width: int = 48, strides: tuple[int, ...] = (8, 16)) -> list[Tensor]:
    torch.manual_seed(1)
    shapes = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in strides]
    return [torch.randn(pictures, 4, *shape) for shape in shapes]


def loud(rpn: RPN) -> RPN:
    """Large weights, so that deltas throw boxes about and scores differ."""
    for layer in (rpn.head.objectness, rpn.head.deltas):
        nn.init.normal_(layer.weight, std=2.0)
    return rpn


def test_raw_maps() -> None:
    maps = RPNHead(4, 3, convs=2)(features())
    assert [(a.shape, b.shape) for a, b in maps] == [
        ((2, 3, 8, 6), (2, 12, 8, 6)),
        ((2, 3, 4, 3), (2, 12, 4, 3)),
    ]


def test_proposals_are_sorted_clipped_and_limited() -> None:
    sizes = [(64, 48), (33, 20)]
    proposals, losses = loud(make_rpn(nms_iou=0.9))(features(), sizes)
    assert losses == {}
    for proposal, (height, width) in zip(proposals, sizes, strict=True):
        boxes, scores = proposal["boxes"], proposal["scores"]
        assert 0 < len(boxes) == len(scores) <= 20
        assert (scores.diff() <= 0).all()
        assert (scores > 0).all() and (scores <= 1).all()
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert not boxes.requires_grad


def test_the_best_anchor_comes_first_undistorted() -> None:
    # no deltas, and an objectness that is the first channel: the one lit cell of the finest level wins
    rpn = make_rpn(strides=(8,))
    nn.init.zeros_(rpn.head.deltas.weight)
    nn.init.zeros_(rpn.head.objectness.weight)
    conv = rpn.head.convs[0]
    nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, 1, 1] = 1
    rpn.head.objectness.weight.data[1, 0] = 1  # the square anchor, 16 x 16
    level = torch.zeros(1, 4, 6, 6)
    level[0, 0, 2, 3] = 5.0
    proposals, _ = rpn([level], [(48, 48)])
    # row 2, cell 3: centre x 24, y 16
    assert proposals[0]["boxes"][0].tolist() == [16, 8, 32, 24]
    assert proposals[0]["scores"][0].item() == pytest.approx(1 / (1 + math.exp(-5)))


def test_sigmoid_first_before_or_after_nms() -> None:
    # one row of square anchors 16 px wide, 8 px apart: neighbours overlap by a third, which NMS at 0.2 does not suffer.
    # float32 knows no difference between sigmoid(20) and sigmoid(40), both are 1.
    level = torch.zeros(1, 4, 1, 3)
    level[0, 0, 0] = torch.tensor([0.0, 20.0, 40.0])
    found = {}
    for kind in ("first", "before_nms", "last"):
        rpn = make_rpn(strides=(8,), sigmoid=kind, nms_iou=0.2, test_counts=ProposalCounts(2, 20))
        for layer in (rpn.head.convs[0], rpn.head.objectness, rpn.head.deltas):
            nn.init.zeros_(layer.weight)
        rpn.head.convs[0].weight.data[0, 0, 1, 1] = 1
        rpn.head.objectness.weight.data[1, 0] = 1  # the square anchor
        rpn.head.objectness.bias.data[[0, 2]] = -30  # the others
        (proposal,), _ = rpn([level], [(16, 48)])
        assert proposal["scores"].tolist() == [1.0]
        found[kind] = proposal["boxes"].tolist()
    # centres 8 and 16: logits choose the latter, for `first` both are equal and either may go
    assert found["before_nms"] == found["last"] == [[8, 0, 24, 8]]
    assert found["first"] in ([[8, 0, 24, 8]], [[0, 0, 16, 8]])


def test_of_equal_scores_that_of_the_larger_logit_stays_only_where_nms_sees_logits() -> None:
    # pictures of one level with two overlapping boxes: NMS on equal scores keeps the first in order of the logits,
    # which is the order of top-k, so the two kinds differ between levels alone
    anchors = AnchorGenerator((8, 8), (16.0, 16.0), (1,))
    counts = ProposalCounts(4, 1)
    boxes = {}
    for kind in ("before_nms", "last"):
        torch.manual_seed(0)
        matcher = Matcher(0.7, 0.3, keep_best=True)
        rpn = RPN(RPNHead(1, 1), anchors, matcher, train_counts=counts, test_counts=counts, sigmoid=kind)
        for layer in (rpn.head.convs[0], rpn.head.objectness, rpn.head.deltas):
            nn.init.zeros_(layer.weight)
        rpn.head.convs[0].weight.data[0, 0, 1, 1] = rpn.head.objectness.weight.data[0, 0] = 1
        levels = [torch.zeros(1, 1, 1, 5), torch.zeros(1, 1, 1, 5)]
        levels[0][0, 0, 0, 0], levels[1][0, 0, 0, 4] = 20.0, 40.0
        boxes[kind] = rpn(levels, [(8, 40)])[0][0]["boxes"].tolist()
    # sigmoid makes both 1, and the finer level comes first; by logits the second level's anchor at x = 32 wins
    assert boxes == {"before_nms": [[0, 0, 8, 8]], "last": [[24, 0, 40, 8]]}


def test_counts_of_training_and_test_are_apart() -> None:
    rpn = make_rpn(train_counts=ProposalCounts(40, 3), test_counts=ProposalCounts(2, 20), nms_iou=1.0)
    sizes, targets = [(64, 48)] * 2, [target((8, 8, 24, 24))] * 2
    assert [len(p["boxes"]) for p in rpn(features(), sizes, targets)[0]] == [3, 3]
    assert [len(p["boxes"]) for p in rpn(features(), sizes)[0]] == [4, 4]  # two of each of two levels


def test_small_proposals_are_dropped_until_none_is_left() -> None:
    sizes = [(64, 48)] * 2
    rpn = loud(make_rpn(min_size=20.0, nms_iou=1.0))
    for proposal in rpn(features(), sizes)[0]:
        assert ((proposal["boxes"][:, 2:] - proposal["boxes"][:, :2]) >= 20).all()
    rpn.min_size = 1000.0
    proposals, losses = rpn(features(), sizes, [target((8, 8, 24, 24)), target()])
    assert [proposal["boxes"].shape for proposal in proposals] == [(0, 4)] * 2
    assert all(value.isfinite() for value in losses.values())


def test_the_losses_by_hand() -> None:
    # all logits and deltas 0: each of the 16 samples of a picture costs ln 2, whatever its label
    rpn = make_rpn(box_loss="l1", box_loss_weight=2.0)
    for layer in (rpn.head.objectness, rpn.head.deltas):
        nn.init.zeros_(layer.weight)
    # the object is the square anchor of the finest level at (16, 16): nothing to correct
    _, losses = rpn(features(1), [(64, 48)], [target((8, 8, 24, 24))])
    assert losses["loss_objectness"].item() == pytest.approx(math.log(2))
    assert losses["loss_rpn_box"].item() == pytest.approx(0, abs=1e-6)
    # moved by 2 px of 16: dx = 0.125, the only positive anchor, weight 2, 16 samples
    _, losses = rpn(features(1), [(64, 48)], [target((10, 8, 26, 24))])
    assert losses["loss_rpn_box"].item() == pytest.approx(2 * 0.125 / 16)


@pytest.mark.parametrize("kind", ["smooth_l1", "l1", "giou"])
@pytest.mark.parametrize(
    "targets",
    [
        [target(), target()],
        [target((8, 8, 24, 24), (0, 0, 48, 64)), target()],
        [target((8, 8, 24, 24), ignore=((0, 0, 48, 64),)), target(ignore=((0, 0, 20, 20),))],
    ],
)
def test_losses_and_gradients_are_finite(kind: str, targets: list[Target]) -> None:
    rpn = loud(make_rpn(box_loss=kind))
    _, losses = rpn(features(), [(64, 48), (30, 30)], targets)
    (losses["loss_objectness"] + losses["loss_rpn_box"]).backward()
    assert losses.keys() == {"loss_objectness", "loss_rpn_box"}
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in rpn.parameters())


def test_a_picture_wholly_ignored_costs_nothing() -> None:
    everywhere = target(ignore=((-500, -500, 500, 500),))
    _, losses = make_rpn()(features(1), [(64, 48)], [everywhere])
    assert [value.item() for value in losses.values()] == [0, 0]
