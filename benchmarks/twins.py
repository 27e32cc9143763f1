"""torchvision's Faster R-CNN with weights drawn at random, and the same detector in detkit, through its importer."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionRCNN
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from detkit.build import build_detector
from detkit.config import Config, config_from_dict
from detkit.importing import LIBRARIES, convert
from detkit.models.faster_rcnn import FasterRCNN
from detkit.types import Target

CLASSES = 91  # with the background
SPREAD = 7.0  # deviation of the last layer's weights, with which scores reach from 0.05 to more than 0.99


def torchvision_twin(size: tuple[int, int], quick: bool = False) -> TorchvisionRCNN:
    """ResNet-50-FPN with batch norm and nothing frozen, for pictures of `size` (height, width); quick: a small one.

    Norms and last layers are drawn so that activations keep their size and scores spread, as in a trained net.
    """
    torch.manual_seed(4)
    options = {"min_size": min(size), "max_size": max(size)}
    if quick:
        backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
        backbone.body.requires_grad_(True)
        head, predictor = TwoMLPHead(256 * 7 * 7, 16), FastRCNNPredictor(16, CLASSES)
        options["box_batch_size_per_image"] = 32
        model = TorchvisionRCNN(backbone, box_head=head, box_predictor=predictor, **options)
    else:
        model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.4, 0.8)
            nn.init.normal_(module.bias, std=0.1)
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.6, 1.4)
    with torch.no_grad():
        model.rpn.head.cls_logits.weight.mul_(3)
        nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=SPREAD)
        nn.init.normal_(model.roi_heads.box_predictor.bbox_pred.weight, std=SPREAD / 3)
    return model


def detkit_twin(model: TorchvisionRCNN) -> tuple[FasterRCNN, Config, Sequence[str]]:
    """detkit's detector with torchvision's weights, its config, and the names of its classes."""
    content = convert(model.state_dict(), LIBRARIES["torchvision"], "torchvision").content
    config = config_from_dict(content["config"]).replace(
        {
            "model.rpn.post_nms_train": 2000,
            "model.roi_head.samples": model.roi_heads.fg_bg_sampler.batch_size_per_image,
            "model.roi_head.smooth_l1_beta": 1 / 9,  # torchvision's, which matters in training only
            "data.short_side": model.transform.min_size[0],
        }
    )
    detector = build_detector(config.model, len(content["classes"]), pretrained=False)
    detector.load_state_dict(content["model"])
    return detector, config, content["classes"]


def picture(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Soft blobs of all sizes and colours (H, W, 3)."""
    rng = np.random.default_rng(seed)
    blobs = [rng.random((side, side, 3)) for side in (4, 16, 64)]
    layers = [cv2.resize(blob, size[::-1], interpolation=cv2.INTER_CUBIC) for blob in blobs]
    return np.clip(255 * np.mean(layers, axis=0), 0, 255).astype(np.uint8)


def pictures_and_targets(count: int, size: tuple[int, int]) -> tuple[list[Tensor], list[Target]]:
    """Pictures (3, H, W) uint8 with eight objects each."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.from_numpy(picture(size, seed)).permute(2, 0, 1).contiguous() for seed in range(count)]
    targets: list[Target] = []
    for _ in range(count):
        corner = torch.rand(8, 2, generator=generator) * 0.6
        extent = 0.05 + torch.rand(8, 2, generator=generator) * 0.34
        boxes = torch.cat((corner, corner + extent), dim=1) * torch.tensor([size[1], size[0]] * 2)
        targets.append({"boxes": boxes, "labels": torch.randint(0, CLASSES - 1, (8,), generator=generator)})
    return images, targets
