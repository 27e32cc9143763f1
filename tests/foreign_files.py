"""Detectors of other libraries for tests: torchvision's with weights drawn at random, others' from their fixtures."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from detkit.types import Detection

MAKERS = {"v1": fasterrcnn_resnet50_fpn, "v2": fasterrcnn_resnet50_fpn_v2}
# Deviation of the weights of the last layers, with which scores reach from 0.05 to more than 0.99.
SPREAD = {"v1": 7.0, "v2": 20.0}


def torchvision_detector(kind: str, num_classes: int = 91, eps: float = 1e-5, **options: Any) -> nn.Module:
    """torchvision's detector with norms and last layers that spread the scores; `eps` of the norms of its backbone."""
    torch.manual_seed(4)
    model = MAKERS[kind](weights=None, weights_backbone=None, num_classes=num_classes, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.4, 0.8)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.6, 1.4)
    for module in model.backbone.body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
    head, predictor = model.rpn.head, model.roi_heads.box_predictor
    with torch.no_grad():
        for layer, scale in ((head.cls_logits, 3.0), (head.bbox_pred, 1.0)):
            layer.weight.mul_(scale)
        nn.init.normal_(predictor.cls_score.weight, std=SPREAD[kind])
        nn.init.normal_(predictor.bbox_pred.weight, std=SPREAD[kind] / 3)
    return model


def small_detector(num_classes: int) -> nn.Module:
    """torchvision's detector v1 with ResNet-18 and a narrow box head, for what does not depend on the size."""
    torch.manual_seed(4)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    head, predictor = TwoMLPHead(256 * 7 * 7, 16), FastRCNNPredictor(16, num_classes)
    nn.init.normal_(predictor.cls_score.weight, std=4.0)
    return FasterRCNN(backbone, box_head=head, box_predictor=predictor).eval()


def fixture_weights(folder: Path, library: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fixture of a library and its weights, numpy arrays by name."""
    spec = importlib.util.spec_from_file_location("make_weights", folder / "make_weights.py")
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fixture = json.loads((folder / f"{library}_fpn_r50.json").read_text())
    return fixture, module.make_weights(fixture["tensors"], fixture["gains"], fixture["shifts"])


def differences(found: Detection, boxes: Tensor, labels: Tensor, scores: Tensor) -> tuple[int, float, float]:
    """How many expected boxes have none of their label within 0.1 px, and how far the others lie: px, score."""
    if len(boxes) == 0 or len(found["boxes"]) == 0:
        return len(boxes), 0.0, 0.0
    apart = (found["boxes"][:, None] - boxes).abs().amax(-1)
    apart = apart.masked_fill(found["labels"][:, None] != labels, float("inf"))
    nearest, which = apart.min(0)
    near = nearest <= 0.1
    score = (found["scores"][which] - scores).abs()[near]
    return int((~near).sum()), float(nearest[near].max()), float(score.max())
