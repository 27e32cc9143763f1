"""Test-time augmentation: a picture and its mirror image at several sizes, merged.

N boxes of all views together, (x1, y1, x2, y2) in pixels of the picture.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torchvision.ops import batched_nms

from detkit.boxes import pairwise_iou
from detkit.merging import join
from detkit.types import Detect, Detection, Picture

SCALES = (0.8, 1.0, 1.25)  # of the size at which the detector was trained


class DetectAtScale(Protocol):
    """As `Detector.detect`."""

    def __call__(self, pictures: Sequence[Picture], scale: float = 1.0) -> list[Detection]: ...


def augmented(detect: DetectAtScale, scales: Sequence[float] = SCALES, iou: float = 0.5) -> Detect:
    """`detect` on each picture and its mirror image at each of the scales, merged by `vote`."""

    def look(pictures: Sequence[Picture]) -> list[Detection]:
        mirrored = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]
        found = []
        for scale in scales:
            found.append(detect(pictures, scale))
            flipped = detect(mirrored, scale)
            found.append([mirror(part, picture.shape[1]) for part, picture in zip(flipped, pictures, strict=True)])
        return [vote(views, iou) for views in zip(*found, strict=True)]

    return look


def mirror(detection: Detection, width: int) -> Detection:
    """Detections in a picture of `width` px as they are in its mirror image."""
    x1, y1, x2, y2 = detection["boxes"].unbind(dim=1)
    return {**detection, "boxes": torch.stack((width - x2, y1, width - x1, y2), dim=1)}


def vote(views: Sequence[Detection], iou: float = 0.5) -> Detection:
    """NMS over all views, then each box becomes the mean of those that agree with it, weighted by score.

    This is box voting (Gidaris and Komodakis, ICCV 2015). What a view is off by is averaged out, which the best box
    alone would keep. Scores stay those of the best boxes: means over the views gave hardly more AP, but less AP50, and
    would shift what a score threshold means (README, "Measured").
    """
    every = join(views)
    boxes, labels, scores = every["boxes"], every["labels"], every["scores"]
    winners = batched_nms(boxes, scores, labels, iou)
    agree = (pairwise_iou(boxes[winners], boxes) > iou) & (labels[winners, None] == labels)
    agree[torch.arange(len(winners)), winners] = True  # with itself, whatever the threshold
    weights = agree * scores
    return {
        "boxes": weights @ boxes / weights.sum(dim=1, keepdim=True),
        "labels": labels[winners],
        "scores": scores[winners],
    }
