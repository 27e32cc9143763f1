"""Pictures as the model sees them in training: augmented, resized, with objects, matched anchors or pyramid levels.

N objects, R anchors. Boxes are x1 y1 x2 y2 in pixels of the resized picture.
"""

import math
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from detkit.boxes import scale_boxes
from detkit.build import build_detector
from detkit.config import Config
from detkit.data.dataset import Sample
from detkit.models.anchors import AnchorGenerator
from detkit.types import Picture, Target
from detkit.visualize import class_colour, draw_detections, fit_picture

CELL = (400, 300)  # px of a picture on a sheet
Show = Literal["classes", "levels", "anchors"]


class View:
    """`view(sample)` is the drawn picture and a caption; `show`: what the colours stand for.

    classes: each object by its class. levels: by the level that the RoI head pools it from. anchors: by its class, with
    the anchors that the RPN learns it from in thin lines.
    """

    def __init__(self, config: Config, classes: tuple[str, ...], show: Show = "classes") -> None:
        with torch.device("meta"):  # no weights: strides, matcher and levels are all that matters
            model = build_detector(config.model, len(classes), pretrained=False)
        rpn = config.model.rpn
        strides = model.rpn.anchors.strides
        self.anchors = AnchorGenerator(strides, rpn.anchor_sizes, rpn.anchor_ratios, rpn.round_anchors)
        self.matcher, self.pooler = model.rpn.matcher, model.roi_head.pooler
        self.classes, self.show, self.multiple = classes, show, config.model.size_multiple

    def __call__(self, sample: Sample, cell: tuple[int, int] | None = CELL) -> tuple[Picture, str]:
        """`cell`: width and height that the picture is fitted into; None leaves it as large as the model sees it."""
        image, target, _ = sample
        picture = np.ascontiguousarray(image.permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy())
        fitted, scales = fit_picture(picture, cell or (picture.shape[1], picture.shape[0]))
        size = f"{picture.shape[1]} x {picture.shape[0]} px"
        scaled: Target = {"boxes": scale_boxes(target["boxes"], *scales), "labels": target["labels"]}
        if "ignore" in target:
            scaled["ignore"] = scale_boxes(target["ignore"], *scales)
        if self.show == "levels":
            scaled["labels"] = self.pooler.levels(target["boxes"])
            return draw_detections(fitted, scaled, [f"stride {stride}" for stride in self.pooler.strides]), size
        if self.show == "anchors":
            anchors, objects = self.matched(target, (picture.shape[0], picture.shape[1]))
            colours = target["labels"][objects].tolist()
            for box, label in zip(scale_boxes(anchors, *scales).round().int().tolist(), colours, strict=True):
                cv2.rectangle(fitted, box[:2], box[2:], class_colour(label), 1)
            size = f"anchors: {len(anchors)}, objects: {len(target['boxes'])}"
        return draw_detections(fitted, scaled, self.classes), size

    def matched(self, target: Target, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Positive anchors (R, 4) in a picture of `size` (height, width), and the object of each (R,)."""
        height, width = (math.ceil(side / self.multiple) * self.multiple for side in size)
        shapes = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in self.anchors.strides]
        anchors = self.anchors(shapes)
        matches = self.matcher(anchors, target["boxes"], target.get("ignore"))
        positive = matches >= 0
        return anchors[positive], matches[positive]
