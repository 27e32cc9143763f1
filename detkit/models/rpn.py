"""Region proposal network (Faster R-CNN, section 3.1) on the levels of a pyramid.

B pictures, C channels, L levels, H_i x W_i cells of level i, A anchors a cell,
R_i = H_i * W_i * A anchors of a level, R anchors of all levels, K kept a level, P proposals of a picture.
objectness: logits, one an anchor; deltas: see coder.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from detkit.boxes import clip_boxes
from detkit.models.anchors import AnchorGenerator
from detkit.models.coder import BoxCoder
from detkit.models.losses import BoxLoss
from detkit.models.matching import Matcher, sample
from detkit.types import Proposals, Target


@dataclass(frozen=True)
class ProposalCounts:
    """How many of the best anchors of a level enter NMS, and how many proposals of a picture leave it."""

    pre_nms: int
    post_nms: int


class RPNHead(nn.Module):
    """3x3 convolutions, then a 1x1 for objectness (A maps) and one for deltas (4 A maps); shared by all levels."""

    def __init__(self, channels: int, anchors_per_cell: int, convs: int = 1) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(convs))
        self.objectness = nn.Conv2d(channels, anchors_per_cell, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors_per_cell, 1)
        for conv in (*self.convs, self.objectness, self.deltas):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Levels (B, C, H_i, W_i) to raw maps: objectness (B, A, H_i, W_i) and deltas (B, 4 A, H_i, W_i)."""
        maps = []
        for feature in features:
            for conv in self.convs:
                feature = F.relu(conv(feature))
            maps.append((self.objectness(feature), self.deltas(feature)))
        return maps


class RPN(nn.Module):
    """Feature levels to proposals, and to losses where targets are given.

    Losses are sums over the sampled anchors divided by `samples` times the number of pictures.

    `sigmoid`: when logits become scores. Those above 16 all become 1, and how such ties are broken differs:
    `before_nms` after the best of each level are chosen (torchvision), `first` before that (mmdetection; torch's sort
    decides, which may differ from one processor to another), `last` after NMS (detectron2; nothing ties).
    """

    def __init__(
        self,
        head: RPNHead,
        anchors: AnchorGenerator,
        matcher: Matcher,
        *,
        train_counts: ProposalCounts,
        test_counts: ProposalCounts,
        samples: int = 256,
        positive_fraction: float = 0.5,
        nms_iou: float = 0.7,
        min_size: float = 0.0,
        sigmoid: Literal["first", "before_nms", "last"] = "before_nms",
        box_loss: str = "smooth_l1",
        smooth_l1_beta: float = 1 / 9,
        box_loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.head, self.anchors, self.matcher = head, anchors, matcher
        self.train_counts, self.test_counts = train_counts, test_counts
        self.samples, self.positive_fraction = samples, positive_fraction
        self.nms_iou, self.min_size, self.sigmoid = nms_iou, min_size, sigmoid
        self.coder = BoxCoder()
        self.box_loss = BoxLoss(box_loss, self.coder, smooth_l1_beta)
        self.box_loss_weight = box_loss_weight

    def forward(
        self,
        features: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        targets: list[Target] | None = None,
        at_least: int = 0,
    ) -> tuple[list[Proposals], dict[str, Tensor]]:
        """Levels (B, C, H_i, W_i) and (height, width) of each picture to its proposals, clipped to the picture.

        With targets also the losses `loss_objectness` and `loss_rpn_box`; without, the dict is empty. `at_least`: as
        many proposals, where there are some, although the counts ask for less.
        """
        maps = self.head(features)
        anchors = self.anchors([(feature.shape[-2], feature.shape[-1]) for feature in features])
        objectness = [_flatten(level, 1).squeeze(-1).float() for level, _ in maps]
        deltas = [_flatten(level, 4).float() for _, level in maps]
        with torch.no_grad():
            counts = self.train_counts if targets is not None else self.test_counts
            counts = ProposalCounts(counts.pre_nms, max(counts.post_nms, at_least))
            proposals = self._propose(objectness, deltas, anchors, image_sizes, counts)
        if targets is None:
            return proposals, {}
        return proposals, self._losses(torch.cat(objectness, 1), torch.cat(deltas, 1), anchors, targets)

    def _propose(
        self,
        objectness: list[Tensor],
        deltas: list[Tensor],
        anchors: Tensor,
        image_sizes: Sequence[tuple[int, int]],
        counts: ProposalCounts,
    ) -> list[Proposals]:
        """The best anchors of each level (B, R_i), decoded, clipped, and thinned out level by level."""
        if self.sigmoid == "first":
            objectness = [level.sigmoid() for level in objectness]
        scores, index, level = _top_of_levels(objectness, counts.pre_nms, by_sort=self.sigmoid == "first")
        if self.sigmoid == "before_nms":
            scores = scores.sigmoid()
        kept = torch.cat(deltas, 1).gather(1, index[..., None].expand(-1, -1, 4))
        boxes = self.coder.decode(kept, anchors[index])
        return [
            self._thin_out(clip_boxes(boxes[picture], *size), scores[picture], level, counts.post_nms)
            for picture, size in enumerate(image_sizes)
        ]

    def _thin_out(self, boxes: Tensor, scores: Tensor, level: Tensor, count: int) -> Proposals:
        """NMS among the boxes (K * L, 4) of the same level of one picture; the best `count` remain."""
        extent = boxes[:, 2:] - boxes[:, :2]
        large = torch.where((extent >= self.min_size).all(dim=1) & (extent > 0).all(dim=1))[0]
        boxes, scores, level = boxes[large], scores[large], level[large]
        if self.sigmoid == "first":
            scores, order = scores.sort(descending=True)  # mmcv's sort, which is not stable
            boxes, level = boxes[order], level[order]
            keep = batched_nms(boxes, torch.arange(len(boxes), 0, -1).to(boxes), level, self.nms_iou)[:count]
        else:
            keep = batched_nms(boxes, scores, level, self.nms_iou)[:count]
        scores = scores[keep].sigmoid() if self.sigmoid == "last" else scores[keep]
        return {"boxes": boxes[keep], "scores": scores}

    def _losses(self, objectness: Tensor, deltas: Tensor, anchors: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Losses of objectness (B, R) and deltas (B, R, 4) on anchors that are sampled picture by picture."""
        sampled, labels, positives, boxes = [], [], [], []
        matched = [self.matcher(anchors, target["boxes"], target.get("ignore")) for target in targets]
        drawn = sample(matched, self.samples, self.positive_fraction)
        for picture, (target, matches, (positive, negative)) in enumerate(zip(targets, matched, drawn, strict=True)):
            first = picture * len(anchors)
            sampled.append(first + torch.cat((positive, negative)))
            labels.append(torch.cat((torch.ones_like(positive), torch.zeros_like(negative))))
            positives.append(first + positive)
            boxes.append(target["boxes"][matches[positive]])
        logits, wanted = objectness.flatten()[torch.cat(sampled)], torch.cat(labels).float()
        positive, normaliser = torch.cat(positives), self.samples * len(targets)
        chosen = deltas.flatten(0, 1)[positive], anchors[positive % len(anchors)], torch.cat(boxes)
        return {
            "loss_objectness": F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / normaliser,
            "loss_rpn_box": self.box_loss(*chosen) * (self.box_loss_weight / normaliser),
        }


def _flatten(level: Tensor, values: int) -> Tensor:
    """(B, A * values, H, W) to (B, H * W * A, values), in the order of the anchors."""
    pictures = level.shape[0]
    return level.permute(0, 2, 3, 1).reshape(pictures, -1, values)


def _top_of_levels(objectness: list[Tensor], count: int, by_sort: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """The best `count` of each level: values (B, K * L), their index among all anchors, and their level (K * L,).

    `by_sort`: as mmdetection does it, where torch's sort decides between equal values; a level that is not longer
    than `count` keeps the order of its anchors.
    """
    scores, indices, levels, first = [], [], [], 0
    for level, logits in enumerate(objectness):
        if by_sort and logits.shape[1] <= count:
            best, index = logits, torch.arange(logits.shape[1], device=logits.device).expand_as(logits)
        elif by_sort:
            best, index = (part[:, :count] for part in logits.sort(dim=1, descending=True))
        else:
            best, index = logits.topk(min(count, logits.shape[1]), dim=1)
        scores.append(best)
        indices.append(index + first)
        levels.append(torch.full((best.shape[1],), level, device=logits.device))
        first += logits.shape[1]
    return torch.cat(scores, 1), torch.cat(indices, 1), torch.cat(levels)
