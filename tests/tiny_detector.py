"""A detector of seconds: ResNet-18, FPN of 32 channels, few samples; pictures and targets for it."""

from typing import Any

import torch
from torch import Tensor

from detkit.build import build_detector
from detkit.config import Config
from detkit.models.faster_rcnn import FasterRCNN
from detkit.types import Target

CLASSES = 3
SMALL = {
    "model.backbone.name": "resnet18",
    "model.neck.out_channels": 32,
    "model.rpn.anchor_sizes": (8, 16, 32, 64, 128),
    "model.rpn.samples": 16,
    "model.rpn.pre_nms_train": 50,
    "model.rpn.post_nms_train": 30,
    "model.rpn.pre_nms_test": 50,
    "model.rpn.post_nms_test": 30,
    "model.roi_head.samples": 16,
    "model.roi_head.canonical_size": 32,
    "model.roi_head.width": 32,
    "model.score_threshold": 0.0,
}


def tiny_detector(seed: int = 0, **changes: Any) -> FasterRCNN:
    """Keys below `model.` with a double underscore for the dot: roi_head__convs=1."""
    torch.manual_seed(seed)
    config = Config().replace(SMALL | {f"model.{key.replace('__', '.')}": value for key, value in changes.items()})
    return build_detector(config.model, CLASSES)


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def target(*boxes: tuple[float, float, float, float], ignore: tuple[tuple[float, ...], ...] | None = None) -> Target:
    """Labels 0, 1, 2, 0, ... in the order of the boxes."""
    result: Target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.arange(len(boxes)) % CLASSES,
    }
    if ignore is not None:
        result["ignore"] = torch.tensor(ignore, dtype=torch.float32).view(-1, 4)
    return result


def check_losses(model: FasterRCNN, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
    """The four losses, finite, and finite gradients of their sum; returns the losses."""
    model.zero_grad()
    losses = model(images, targets)
    assert losses.keys() == {"loss_objectness", "loss_rpn_box", "loss_class", "loss_box"}
    for name, value in losses.items():
        assert value.shape == (), name
        assert value.isfinite(), name
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    return losses
