"""Box head and RoI head: shapes, sampling, losses by hand, detections."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from detkit.models.matching import Matcher
from detkit.models.roi_head import BoxHead, LevelPooler, RoIHead
from detkit.types import Proposals
from tests.tiny_detector import target

SIZES = [(64, 48), (30, 40)]


def make_head(classes: int = 3, agnostic: bool = False, **settings: object) -> RoIHead:
    torch.manual_seed(0)
    box_head = BoxHead(4, 3, classes, linears=1, width=8, class_agnostic=agnostic)
    pooler = LevelPooler((4, 8), canonical_size=128, size=3)
    options = {"samples": 8, "score_threshold": 0.0} | settings
    return RoIHead(pooler, box_head, Matcher(0.5, 0.5, keep_best=False), **options)  # type: ignore[arg-type]


def features(pictures: int = 2) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(pictures, 4, 16, 12), torch.randn(pictures, 4, 8, 6), torch.randn(pictures, 4, 4, 3)]


def proposals(*boxes: tuple[float, float, float, float]) -> Proposals:
    found = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return {"boxes": found, "scores": torch.linspace(1, 0.5, len(found))}


SOME = proposals((0, 0, 20, 20), (5, 5, 40, 30), (1, 2, 9, 30))


@pytest.mark.parametrize(("agnostic", "deltas"), [(False, 12), (True, 4)])
@pytest.mark.parametrize(("convs", "norm"), [(0, "none"), (2, "none"), (1, "group"), (1, "batch")])
@pytest.mark.parametrize("linears", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 5])
def test_box_head_shapes(agnostic: bool, deltas: int, convs: int, norm: str, linears: int, count: int) -> None:
    head = BoxHead(4, 3, 3, convs=convs, conv_channels=8, linears=linears, width=6, norm=norm, class_agnostic=agnostic)
    scores, moves = head.eval()(torch.randn(count, 4, 3, 3))
    assert (scores.shape, moves.shape) == ((count, 4), (count, deltas))
    assert scores.dtype == moves.dtype == torch.float32


def test_box_head_reads_bins_row_by_row_with_channels_innermost() -> None:
    head = BoxHead(2, 2, 1, linears=0)
    # one weight per input: its position
    head.scores.weight.data[0] = torch.arange(8.0)
    pooled = torch.zeros(1, 2, 2, 2)
    pooled[0, 1, 1, 0] = 1  # row 1, cell 0, channel 1: (1 * 2 + 0) * 2 + 1
    assert head(pooled)[0][0, 0].item() == 5


@pytest.mark.parametrize(("init", "variance"), [("kaiming", 2.0), ("small", 1 / 3)])
def test_box_head_starts_with_this_variance_times_inputs(init: Literal["kaiming", "small"], variance: float) -> None:
    torch.manual_seed(0)
    for layer in BoxHead(64, 7, 3, width=256, init=init).linears:
        weight = layer.get_parameter("weight")
        assert weight.var().item() * weight.shape[1] == pytest.approx(variance, rel=0.03)


def test_low_precision_layers_give_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scores, deltas = BoxHead(4, 3, 2, linears=1, width=8)(torch.randn(2, 4, 3, 3))
    assert scores.dtype == deltas.dtype == torch.float32


def test_no_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one class, got 0"):
        BoxHead(4, 3, 0)


def test_the_losses_by_hand() -> None:
    # all logits and deltas 0 and 4 values a class: every sample costs ln 4
    head = make_head(box_loss="l1", box_loss_weight=2.0, samples=4, positive_fraction=0.5)
    for layer in (head.box_head.scores, head.box_head.deltas):
        nn.init.zeros_(layer.weight)
    shown = target((0, 0, 20, 20))
    # the true box itself joins as a positive without error; one proposal is moved by 2 px of 20: dx 0.1 * 10
    given = proposals((2, 0, 22, 20), (30, 30, 40, 40))
    losses = head(features(1), [given], [shown])
    # three candidates for four samples: the divisor stays 4
    assert losses["loss_class"].item() == pytest.approx(3 * math.log(4) / 4)
    assert losses["loss_box"].item() == pytest.approx(2 * 1.0 / 4)


@pytest.mark.parametrize("kind", ["smooth_l1", "l1", "giou"])
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize(
    "case",
    ["usual", "no objects", "no proposals", "nothing at all", "ignored"],
)
def test_losses_and_gradients_are_finite(kind: str, agnostic: bool, case: str) -> None:
    head = make_head(agnostic=agnostic, box_loss=kind)
    shown = target((0, 0, 21, 20), (5, 5, 38, 30))
    given, targets = {
        "usual": ([SOME, SOME], [shown, target()]),
        "no objects": ([SOME, SOME], [target(), target()]),
        "no proposals": ([proposals(), proposals()], [shown, target()]),
        "nothing at all": ([proposals(), proposals()], [target(), target()]),
        "ignored": ([SOME, SOME], [target(ignore=((0, 0, 64, 64),)), target((0, 0, 21, 20), ignore=((0, 0, 9, 9),))]),
    }[case]
    losses = head(features(), given, targets)
    assert losses.keys() == {"loss_class", "loss_box"}
    (losses["loss_class"] + losses["loss_box"]).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    if case == "nothing at all":
        assert [value.item() for value in losses.values()] == [0, 0]


def test_class_aware_deltas_of_other_classes_get_no_gradient() -> None:
    head = make_head(classes=3)
    losses = head(features(1), [proposals((0, 0, 18, 20))], [target((0, 0, 20, 20))])  # label 0
    losses["loss_box"].backward()
    gradient = head.box_head.deltas.weight.grad
    assert gradient is not None
    rows = gradient.abs().sum(dim=1).view(3, 4).sum(dim=1)
    assert rows[0] > 0
    assert rows[1:].tolist() == [0, 0]


def certain(head: RoIHead, label: int) -> RoIHead:
    """A head that sees the given class everywhere, with deltas of 0."""
    for layer in (head.box_head.scores, head.box_head.deltas):
        nn.init.zeros_(layer.weight)
    head.box_head.scores.bias.data[label] = 5.0
    return head


def test_detections_by_hand() -> None:
    # softmax of (0, 5, 0, 0); the second box overlaps the first by 18 / 20 and goes, the third is cut at the picture
    score = math.exp(5) / (math.exp(5) + 3)
    given = proposals((0, 0, 20, 20), (0, 0, 18, 20), (30, 30, 60, 90), (100, 100, 120, 120))
    found = certain(make_head(score_threshold=0.5), 1).predict(features(1), [given], [(64, 48)])[0]
    assert sorted(found["boxes"].tolist()) == [[0, 0, 20, 20], [30, 30, 48, 64]]
    assert found["labels"].tolist() == [1, 1]
    assert found["scores"].tolist() == pytest.approx([score] * 2)


def test_detections_with_a_shorter_side_than_min_size_are_dropped() -> None:
    # 20 x 4 and 20 x 3.9 px; the third is 20 x 20, of which the picture (64, 48) leaves 3 columns
    given = proposals((0, 0, 20, 4), (0, 30, 20, 33.9), (45, 40, 65, 60))
    found = {
        size: certain(make_head(score_threshold=0.5, min_size=size), 1).predict(features(1), [given], [(64, 48)])[0]
        for size in (0.0, 3.95, 4.0, 5.0)
    }
    assert [len(detection["boxes"]) for detection in found.values()] == [3, 1, 1, 0]
    assert found[4.0]["boxes"].tolist() == [[0, 0, 20, 4]]


def test_nms_is_class_by_class() -> None:
    # two classes equally likely, one box: both stay
    head = certain(certain(make_head(score_threshold=0.3), 0), 2)
    found = head.predict(features(1), [proposals((0, 0, 20, 20))], [(64, 48)])[0]
    assert sorted(found["labels"].tolist()) == [0, 2]


@pytest.mark.parametrize("agnostic", [False, True])
def test_background_is_never_a_detection_and_the_number_is_limited(agnostic: bool) -> None:
    head = make_head(agnostic=agnostic, max_detections=4, nms_iou=1.0)
    assert not len(certain(make_head(score_threshold=0.5), 3).predict(features(), [SOME, SOME], SIZES)[0]["boxes"])
    for found in head.predict(features(), [SOME, SOME], SIZES):
        assert len(found["boxes"]) == 4
        assert (found["scores"].diff() <= 0).all()
        assert found["labels"].max() < 3


def test_no_proposals_no_detections() -> None:
    for given in ([proposals(), SOME], [proposals(), proposals()]):
        found = make_head().predict(features(), given, SIZES)
        assert found[0]["boxes"].shape == (0, 4)
        assert found[0]["labels"].shape == found[0]["scores"].shape == (0,)
        assert len(found) == 2


def test_levels_are_those_of_the_pooler() -> None:
    # canonical 128 on strides (4, 8): the border lies at 64
    assert make_head().levels(torch.tensor([[0.0, 0, 63, 63], [0, 0, 64, 64]])).tolist() == [0, 1]
