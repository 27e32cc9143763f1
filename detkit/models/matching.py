"""Which anchor or proposal stands for which object, and which of them a loss looks at.

N anchors or proposals, M objects, I ignore regions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from detkit.boxes import pairwise_coverage, pairwise_iou

BACKGROUND = -1
IGNORED = -2


class Matcher:
    """Matches by intersection over union (Faster R-CNN, section 3.1.2).

    At least `positive_iou`: the object of the highest overlap; below `negative_iou`: background; between: ignored.
    `keep_best` also makes positive the boxes that overlap some object most, however little (anchors only); each then
    stands for the object that it overlaps most. A box that lies by half or more in an ignore region is ignored.
    """

    def __init__(self, positive_iou: float, negative_iou: float, keep_best: bool) -> None:
        self.positive_iou, self.negative_iou, self.keep_best = positive_iou, negative_iou, keep_best

    def __call__(self, boxes: Tensor, objects: Tensor, ignore: Tensor | None = None) -> Tensor:
        """For each of boxes (N, 4) the index of its object in objects (M, 4), BACKGROUND or IGNORED: (N,) int64."""
        matches = torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
        if len(objects) and len(boxes):
            iou = pairwise_iou(objects, boxes)
            best, index = iou.max(dim=0)
            matches = torch.where(best >= self.positive_iou, index, matches)
            between = (best >= self.negative_iou) & (best < self.positive_iou)
            matches = torch.where(between, IGNORED, matches)
            if self.keep_best:
                matches = self._keep_best(matches, iou, index)
        if ignore is not None and len(ignore) and len(boxes):
            # a region of many objects says nothing about what is in it: neither object nor background
            covered = pairwise_coverage(boxes, ignore).amax(dim=1) >= 0.5
            matches = torch.where(covered, IGNORED, matches)
        return matches

    @staticmethod
    def _keep_best(matches: Tensor, iou: Tensor, index: Tensor) -> Tensor:
        highest = iou.amax(dim=1, keepdim=True)
        is_best = ((iou == highest) & (highest > 0)).any(dim=0)
        return torch.where(is_best, index, matches)


def sample(matches: Sequence[Tensor], count: int, positive_fraction: float) -> list[tuple[Tensor, Tensor]]:
    """For the matches (N,) of each picture at most `count` indices: objects up to the fraction, the rest background.

    Returns (positive, negative) a picture, drawn at random. Where one kind is short, fewer are drawn; negatives fill up
    for missing positives. The numbers of all pictures are read at once: a GPU is waited for a single time.
    """
    if not matches:
        return []
    kinds = [(each >= 0, each == BACKGROUND) for each in matches]
    totals = torch.stack([mask.sum() for pair in kinds for mask in pair]).view(-1, 2).tolist()
    drawn = []
    for (is_positive, is_negative), (positives, negatives) in zip(kinds, totals, strict=True):
        positive = _draw(is_positive, positives, int(count * positive_fraction))
        drawn.append((positive, _draw(is_negative, negatives, count - len(positive))))
    return drawn


def _draw(mask: Tensor, total: int, count: int) -> Tensor:
    """Indices of at most `count` of the `total` places where mask (N,) is true."""
    indices = torch.nonzero_static(mask, size=total)[:, 0]
    if total <= count:
        return indices
    return indices[torch.randperm(total, device=indices.device)[:count]]
