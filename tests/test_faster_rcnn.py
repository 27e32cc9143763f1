"""The whole detector, small: losses, gradients, detections, and the odd batches."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from detkit.models.anchors import AnchorGenerator
from detkit.models.faster_rcnn import FasterRCNN
from detkit.models.fpn import FPN
from detkit.models.matching import Matcher
from detkit.models.roi_head import BoxHead, LevelPooler, RoIHead
from detkit.models.rpn import RPN, ProposalCounts, RPNHead
from detkit.types import Detection, Target
from tests.tiny_detector import CLASSES, check_losses, picture, target, tiny_detector

OBJECTS = target((5, 6, 30, 28), (20, 20, 60, 50))


def check_detections(found: list[Detection], images: list[Tensor]) -> None:
    assert len(found) == len(images)
    for detection, image in zip(found, images, strict=True):
        boxes, labels, scores = detection["boxes"], detection["labels"], detection["scores"]
        height, width = image.shape[1:]
        assert boxes.shape == (len(labels), 4) == (len(scores), 4)
        assert (scores.diff() <= 0).all()
        assert ((labels >= 0) & (labels < CLASSES)).all()
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes.dtype == scores.dtype == torch.float32
        assert labels.dtype == torch.int64


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"roi_head__class_agnostic": True, "roi_head__box_loss": "giou", "rpn__box_loss": "giou"},
        {"roi_head__box_loss": "l1", "rpn__box_loss": "l1", "rpn__convs": 2, "neck__extra_level": "conv"},
        {"roi_head__convs": 1, "roi_head__conv_channels": 16, "roi_head__norm": "group", "roi_head__linears": 1},
        {"backbone__norm": "group", "neck__norm": "group", "roi_head__sampling_ratio": 0, "roi_head__aligned": False},
    ],
    ids=["default", "agnostic giou", "l1", "convs", "group"],
)
def test_variants_train_every_parameter_and_predict(changes: dict[str, object]) -> None:
    # every anchor is sampled: the few of the coarsest level would be missed otherwise
    model = tiny_detector(rpn__samples=4096, **changes).train()
    images = [picture(64, 64), picture(64, 64, seed=1)]
    # the last norm of a block starts at 0 and would let no gradient through
    for module in model.backbone.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.ones_(module.weight)
    check_losses(model, images, [OBJECTS, target((2, 2, 12, 12))])
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    check_detections(model.eval().predict(images), images)


def test_frozen_stages_get_no_gradient() -> None:
    model = tiny_detector(backbone__frozen_stages=2).train()
    check_losses(model, [picture(64, 64)], [OBJECTS])
    frozen = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert frozen
    assert all(name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1")) for name in frozen)


@pytest.fixture(scope="module")
def model() -> FasterRCNN:
    """In eval mode, whose losses are the same four; no test changes it."""
    return tiny_detector().eval()


@pytest.mark.parametrize(
    "targets",
    [
        [target()],
        [OBJECTS, target()],
        [target(), target()],
        [target((5, 6, 30, 28), ignore=((0, 0, 64, 40),)), OBJECTS],
        [target(ignore=((0, 0, 64, 64),))],
    ],
    ids=["empty alone", "one empty", "all empty", "crowd", "crowd alone"],
)
def test_pictures_without_objects_and_with_crowds(model: FasterRCNN, targets: list[Target]) -> None:
    losses = check_losses(model, [picture(64, 64, seed) for seed in range(len(targets))], targets)
    if not any(len(item["boxes"]) for item in targets):
        assert losses["loss_box"] == losses["loss_rpn_box"] == 0


def test_a_batch_of_very_different_sizes(model: FasterRCNN) -> None:
    images = [picture(16, 100), picture(90, 20, 1), picture(1, 1, 2)]
    check_losses(model, images, [target((2, 2, 90, 14)), target((1, 1, 18, 80)), target()])
    check_detections(model.predict(images), images)
    for proposal, image in zip(model.propose(images), images, strict=True):
        height, width = image.shape[1:]
        assert (proposal["boxes"] >= 0).all()
        assert (proposal["boxes"] <= torch.tensor([width, height, width, height])).all()


def test_propose_is_sorted_and_needs_no_gradient(model: FasterRCNN) -> None:
    proposals = model.propose([picture(64, 64)])
    assert len(proposals) == 1
    assert 0 < len(proposals[0]["boxes"]) == len(proposals[0]["scores"]) <= 30
    assert (proposals[0]["scores"].diff() <= 0).all()
    assert not proposals[0]["boxes"].requires_grad


def test_no_proposals() -> None:
    model = tiny_detector(rpn__min_size=1e6).eval()
    images = [picture(64, 64)]
    assert not len(model.propose(images)[0]["boxes"])
    check_losses(model, images, [OBJECTS])
    check_losses(model, images, [target()])
    found = model.predict(images)
    check_detections(found, images)
    assert not len(found[0]["boxes"])


def test_a_picture_alone_is_seen_as_in_a_batch(model: FasterRCNN) -> None:
    images = [picture(64, 48), picture(64, 48, seed=1)]
    together = model.predict(images)
    for image, expected in zip(images, together, strict=True):
        alone = model.predict([image])[0]
        torch.testing.assert_close(alone, expected, atol=1e-3, rtol=1e-3)


def test_uint8_and_float_pictures_are_the_same(model: FasterRCNN) -> None:
    image = picture(40, 50)
    assert torch.equal(model.batch([image]), model.batch([image.float()]))
    torch.testing.assert_close(model.predict([image]), model.predict([image.float()]))


def test_the_batch_is_normalised_and_padded_with_zeros(model: FasterRCNN) -> None:
    white = torch.full((3, 33, 20), 255, dtype=torch.uint8)
    batch = model.batch([white, white[:, :10, :5]])
    assert batch.shape == (2, 3, 64, 64)
    # (255 - mean) / std of red, green, blue
    expected = torch.tensor([(255 - 123.675) / 58.395, (255 - 116.28) / 57.12, (255 - 103.53) / 57.375])
    torch.testing.assert_close(batch[0, :, 32, 19], expected)
    torch.testing.assert_close(batch[1, :, 9, 4], expected)
    assert batch[0, :, 33:].abs().sum() == batch[0, :, :, 20:].abs().sum() == 0
    assert batch[1, :, 10:].abs().sum() == batch[1, :, :, 5:].abs().sum() == 0
    assert tiny_detector(size_multiple=8).batch([white]).shape == (1, 3, 40, 40)


def test_memory_stays_channels_last(model: FasterRCNN) -> None:
    batch = model.batch([picture(64, 96), picture(60, 90)])
    assert batch.is_contiguous(memory_format=torch.channels_last)
    levels = model.features([picture(64, 96), picture(60, 90)])
    # a map of one cell is both
    assert all(level.is_contiguous(memory_format=torch.channels_last) for level in levels)


@pytest.mark.parametrize("shape", [(1, 8, 8), (8, 8), (8, 8, 3), (1, 3, 8, 8)])
def test_wrong_shapes_are_refused(model: FasterRCNN, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected pictures of shape \(3, H, W\)"):
        model.predict([picture(8, 8), torch.zeros(shape)])


def test_no_pictures_are_refused(model: FasterRCNN) -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        model.predict([])


class OneLevel(nn.Module):
    """The smallest backbone: one level of stride 16."""

    channels, strides = (8,), (16,)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 17, stride=16, padding=8)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.conv(images)]


def test_a_backbone_of_one_level() -> None:
    torch.manual_seed(0)
    neck = FPN((8,), (16,), out_channels=8, extra_level="none")
    counts = ProposalCounts(20, 10)
    anchors = AnchorGenerator(neck.strides)
    rpn = RPN(RPNHead(8, 3), anchors, Matcher(0.7, 0.3, True), train_counts=counts, test_counts=counts, samples=8)
    box_head = BoxHead(8, 3, CLASSES, linears=1, width=8)
    head = RoIHead(LevelPooler((16,), size=3), box_head, Matcher(0.5, 0.5, False), samples=8, score_threshold=0.0)
    model = FasterRCNN(OneLevel(), neck, rpn, head, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    images = [picture(64, 64), picture(50, 30, 1)]
    check_losses(model, images, [OBJECTS, target()])
    check_detections(model.predict(images), images)


class Waits(TorchDispatchMode):
    """Counts operations for which the host waits for a GPU, as the size of their result depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten.nonzero.default, torch.ops.aten._local_scalar_dense.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("pictures", [1, 3])
def test_what_a_step_waits_for_is_one_list_of_boxes_a_picture_before_nms(model: FasterRCNN, pictures: int) -> None:
    images, targets = [picture(64, 96, seed=i) for i in range(pictures)], [OBJECTS] * pictures
    with Waits() as waits:
        sum(model(images, targets).values(), torch.zeros(())).backward()
    assert waits.count == pictures
