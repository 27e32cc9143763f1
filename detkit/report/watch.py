"""A detector at work: what its RPN proposes for each object, the level of each object, and the time it takes.

N objects of a picture, P proposals, Q numbers of proposals that are asked about.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from detkit.boxes import pairwise_iou
from detkit.predict import Detector
from detkit.types import Batch, Detection

PROPOSALS = (100, 300, 1000)


@dataclass(frozen=True)
class Proposed:
    """For the objects of a picture, in the order of its target."""

    best_iou: Tensor  # (N, Q + 1) with the best 100, 300, 1000 proposals, and with those that the RoI head sees
    levels: Tensor  # (N,) from which the RoI head pools an object's box


class Watch:
    """`watch(batch)` gives the detections of its pictures, and notes in `proposed`, by image id, what was seen.

    `seconds` is the time in the detector and `pictures` their number, without the first batch, which is slower; without
    others it counts.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.proposed: dict[int, Proposed] = {}
        self.seconds, self.pictures = 0.0, 0
        self._batches = 0
        self.seen = detector.model.rpn.test_counts.post_nms

    def __call__(self, batch: Batch) -> list[Detection]:
        started = time.perf_counter()
        detections, proposals = self.detector.predict_with_proposals(batch.images, max(PROPOSALS))
        if self.detector.device.type == "cuda":
            torch.cuda.synchronize(self.detector.device)
        self._clock(time.perf_counter() - started, len(batch.images))
        for proposal, target, meta in zip(proposals, batch.targets, batch.metas, strict=True):
            boxes, objects = proposal["boxes"].float().cpu(), target["boxes"].cpu()
            self.proposed[meta["image_id"]] = Proposed(
                best_iou(boxes, objects, (*PROPOSALS, self.seen)),
                self.detector.model.roi_head.levels(objects),
            )
        return detections

    def _clock(self, seconds: float, pictures: int) -> None:
        if self._batches == 1:
            self.seconds, self.pictures = 0.0, 0
        self.seconds, self.pictures = self.seconds + seconds, self.pictures + pictures
        self._batches += 1


def best_iou(proposals: Tensor, objects: Tensor, counts: tuple[int, ...]) -> Tensor:
    """The best IoU of each of objects (N, 4) with the first `count` of proposals (P, 4), for each count: (N, Q)."""
    iou = torch.cat((torch.zeros(1, len(objects)), pairwise_iou(proposals, objects)))  # the zeros: no proposals
    return torch.stack([iou[: count + 1].amax(0) for count in counts], dim=1)
