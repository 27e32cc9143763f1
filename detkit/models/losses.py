"""Box losses: by deltas (smooth L1, L1) or by the boxes themselves (GIoU). N boxes; each returns the sum over them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from detkit.models.coder import BoxCoder


class BoxLoss:
    """One of smooth_l1, l1, giou, as a sum over boxes.

    smooth_l1 and l1 compare deltas (Fast R-CNN, eq. 3); giou compares decoded boxes (Rezatofighi et al., 2019, eq. 2).
    """

    def __init__(self, kind: str, coder: BoxCoder, beta: float = 1.0) -> None:
        if kind not in ("smooth_l1", "l1", "giou"):
            raise ValueError(f"expected a box loss out of smooth_l1, l1, giou, got {kind!r}")
        self.kind, self.coder, self.beta = kind, coder, beta

    def __call__(self, deltas: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Predicted deltas (N, 4) of anchors (N, 4) whose true boxes are (N, 4): a scalar."""
        if self.kind == "giou":
            return giou_loss(self.coder.decode(deltas, anchors), boxes)
        targets = self.coder.encode(boxes, anchors)
        if self.kind == "l1":
            return F.l1_loss(deltas, targets, reduction="sum")
        return F.smooth_l1_loss(deltas, targets, reduction="sum", beta=self.beta)


def giou_loss(a: Tensor, b: Tensor) -> Tensor:
    """Sum over pairs of boxes (N, 4) of 1 - GIoU: 0 for equal boxes, towards 2 for boxes far apart."""
    return (1 - paired_giou(a, b)).sum()


def paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised intersection over union of a[i] with b[i], (N,) in (-1, 1]."""
    shared = _area(torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:]))
    hull = _area(torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:]))
    union = _area(a[:, :2], a[:, 2:]) + _area(b[:, :2], b[:, 2:]) - shared
    return shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(dim=1)
