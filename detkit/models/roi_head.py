"""RoI head (Fast R-CNN; FPN, section 4.2): proposals to classes and refined boxes.

B pictures, C channels, L levels, N RoIs of all pictures, S x S bins, K classes (background is K), D deltas:
4 * K values an RoI, or 4 when class-agnostic.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from detkit.boxes import clip_boxes
from detkit.models.coder import BoxCoder
from detkit.models.losses import BoxLoss
from detkit.models.matching import Matcher, sample
from detkit.models.roi_pool import pool_levels
from detkit.norm import make_norm
from detkit.types import Detection, Proposals, Target


class LevelPooler(nn.Module):
    """RoIAlign from the level that fits the size of each RoI (FPN, eq. 1).

    k = floor(4 + log2(sqrt(w h) / canonical_size)); level = clamp(k - log2(strides[0]), 0, L - 1), counted by index,
    also where strides repeat. A single level takes everything.
    """

    def __init__(
        self,
        strides: Sequence[int],
        canonical_size: float = 224.0,
        size: int = 7,
        sampling_ratio: int = 2,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.strides, self.canonical_size = tuple(strides), canonical_size
        self.size, self.sampling_ratio, self.aligned = size, sampling_ratio, aligned

    def levels(self, boxes: Tensor) -> Tensor:
        """The level of each of boxes (N, 4) in pixels: (N,) int64 in [0, L)."""
        width, height = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).unbind(1)
        # a square of exactly the canonical size must not fall below by rounding
        k = torch.floor(4 + torch.log2((width * height).sqrt() / self.canonical_size + 1e-8))
        return (k - math.log2(self.strides[0])).clamp(0, len(self.strides) - 1).long()

    def forward(self, features: Sequence[Tensor], boxes: list[Tensor]) -> Tensor:
        """Levels (B, C, H_i, W_i) and the boxes of each picture, N together: (N, C, S, S)."""
        picture = torch.cat([box.new_full((len(box), 1), i) for i, box in enumerate(boxes)])
        rois = torch.cat((picture, torch.cat(boxes)), dim=1)
        scales = [1 / stride for stride in self.strides]
        used = features[: len(self.strides)]  # an extra level after them is for the RPN only
        return pool_levels(used, rois, self.levels(rois[:, 1:]), scales, self.size, self.sampling_ratio, self.aligned)


class BoxHead(nn.Module):
    """Pooled RoIs (N, C, S, S) to class logits (N, K + 1) and deltas (N, D), both float32.

    `convs` 3x3 convolutions, then `linears` hidden layers. The first linear layer reads the bins row by row with the
    channels innermost, as they lie in channels-last memory.

    `init` of the linear layers: `kaiming` keeps the size of the activations (variance 2 / inputs), `small` has a sixth
    of that variance, which stays stable where the levels come large and without norm.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        num_classes: int,
        *,
        convs: int = 0,
        conv_channels: int = 256,
        linears: int = 2,
        width: int = 1024,
        norm: str = "none",
        class_agnostic: bool = False,
        init: Literal["kaiming", "small"] = "kaiming",
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"expected at least one class, got {num_classes}")
        self.num_classes, self.class_agnostic = num_classes, class_agnostic
        layers: list[nn.Module] = []
        for _ in range(convs):
            layers.append(nn.Conv2d(channels, conv_channels, 3, padding=1, bias=norm == "none"))
            if norm != "none":
                layers.append(make_norm(norm, conv_channels))
            layers.append(nn.ReLU(inplace=True))
            channels = conv_channels
        self.convs = nn.Sequential(*layers)
        inputs = [channels * size * size] + [width] * linears
        self.linears = nn.ModuleList(nn.Linear(inputs[i], width) for i in range(linears))
        self.scores = nn.Linear(inputs[-1], num_classes + 1)
        self.deltas = nn.Linear(inputs[-1], 4 if class_agnostic else 4 * num_classes)
        self._initialise(init)

    def _initialise(self, init: str) -> None:
        for module in self.convs:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        hidden = [module for module in self.linears if isinstance(module, nn.Linear)]
        for layer in hidden:
            if init == "kaiming":
                nn.init.kaiming_normal_(layer.weight)
            else:
                nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (*hidden, self.scores, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        x = self.convs(pooled).permute(0, 2, 3, 1).flatten(1)
        for linear in self.linears:
            x = F.relu(linear(x))
        return self.scores(x).float(), self.deltas(x).float()


class RoIHead(nn.Module):
    """Pools proposals from their levels, scores and refines them.

    Losses are means and sums over the sampled proposals, divided by `samples` times the number of pictures.
    """

    def __init__(
        self,
        pooler: LevelPooler,
        box_head: BoxHead,
        matcher: Matcher,
        *,
        samples: int = 512,
        positive_fraction: float = 0.25,
        box_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        box_loss: str = "smooth_l1",
        smooth_l1_beta: float = 1.0,
        box_loss_weight: float = 1.0,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_detections: int = 100,
        min_size: float = 0.0,
    ) -> None:
        super().__init__()
        self.pooler, self.box_head, self.matcher = pooler, box_head, matcher
        self.samples, self.positive_fraction = samples, positive_fraction
        self.coder = BoxCoder(box_weights)
        self.box_loss = BoxLoss(box_loss, self.coder, smooth_l1_beta)
        self.box_loss_weight = box_loss_weight
        self.score_threshold, self.nms_iou, self.max_detections = score_threshold, nms_iou, max_detections
        self.min_size = min_size

    def levels(self, boxes: Tensor) -> Tensor:
        """The level from which each of boxes (N, 4) is pooled: (N,) int64."""
        return self.pooler.levels(boxes)

    def forward(
        self, features: Sequence[Tensor], proposals: list[Proposals], targets: list[Target]
    ) -> dict[str, Tensor]:
        """The losses `loss_class` and `loss_box` on a sample of proposals, to which the true boxes are added."""
        with torch.no_grad():
            boxes, labels, true_boxes = self._sample(proposals, targets)
        scores, deltas = self.box_head(self.pooler(features, boxes))
        label, rois = torch.cat(labels), torch.cat(boxes)
        positive = _leading(boxes, true_boxes)
        chosen = self._deltas_of(deltas[positive], label[positive])
        normaliser = self.samples * len(targets)
        box_loss = self.box_loss(chosen, rois[positive], torch.cat(true_boxes))
        return {
            "loss_class": F.cross_entropy(scores, label, reduction="sum") / normaliser,
            "loss_box": box_loss * (self.box_loss_weight / normaliser),
        }

    def predict(
        self, features: Sequence[Tensor], proposals: list[Proposals], image_sizes: Sequence[tuple[int, int]]
    ) -> list[Detection]:
        """Detections of each picture, in pixels of the picture given, thinned out class by class."""
        boxes = [proposal["boxes"] for proposal in proposals]
        scores, deltas = self.box_head(self.pooler(features, boxes))
        scores = scores.softmax(dim=1)[:, :-1]
        counts = [len(box) for box in boxes]
        parts = zip(scores.split(counts), deltas.split(counts), boxes, image_sizes, strict=True)
        return [self._detect(*part) for part in parts]

    def _sample(
        self, proposals: list[Proposals], targets: list[Target]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """For each picture: sampled boxes (n, 4), their labels (n,), and the true boxes of the objects, which lead."""
        boxes, labels, true_boxes = [], [], []
        pool = [torch.cat((found["boxes"], target["boxes"])) for found, target in zip(proposals, targets, strict=True)]
        matched = [
            self.matcher(candidates, target["boxes"], target.get("ignore"))
            for candidates, target in zip(pool, targets, strict=True)
        ]
        drawn = sample(matched, self.samples, self.positive_fraction)
        for candidates, matches, target, (positive, negative) in zip(pool, matched, targets, drawn, strict=True):
            background = torch.full_like(negative, self.box_head.num_classes)
            boxes.append(candidates[torch.cat((positive, negative))])
            labels.append(torch.cat((target["labels"][matches[positive]], background)))
            true_boxes.append(target["boxes"][matches[positive]])
        return boxes, labels, true_boxes

    def _deltas_of(self, deltas: Tensor, labels: Tensor) -> Tensor:
        """Of deltas (n, D) those of the class in labels (n,): (n, 4)."""
        if self.box_head.class_agnostic:
            return deltas
        return deltas.view(len(deltas), self.box_head.num_classes, 4)[
            torch.arange(len(deltas), device=deltas.device), labels
        ]

    def _detect(self, scores: Tensor, deltas: Tensor, boxes: Tensor, size: tuple[int, int]) -> Detection:
        """Scores (n, K) and deltas (n, D) of the proposals (n, 4) of one picture."""
        roi, label = torch.where(scores > self.score_threshold)
        score = scores[roi, label]
        found = clip_boxes(self.coder.decode(self._deltas_of(deltas[roi], label), boxes[roi]), *size)
        extent = found[:, 2:] - found[:, :2]
        solid = torch.where(((extent > 0) & (extent >= self.min_size)).all(dim=1))[0]
        found, label, score = found[solid], label[solid], score[solid]
        keep = batched_nms(found, score, label, self.nms_iou)[: self.max_detections]
        return {"boxes": found[keep], "labels": label[keep], "scores": score[keep]}


def _leading(boxes: Sequence[Tensor], objects: Sequence[Tensor]) -> Tensor:
    """Where the objects (n_i,) stand when the boxes (N_i,) of all pictures, objects first, are one list: (sum n_i,)."""
    first, places = 0, []
    for all_boxes, leading in zip(boxes, objects, strict=True):
        places.append(torch.arange(first, first + len(leading), device=leading.device))
        first += len(all_boxes)
    return torch.cat(places)
