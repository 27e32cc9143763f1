"""Joining what was found in several views of one picture: its mirror, other scales, its tiles.

N boxes of all views together; boxes are (x1, y1, x2, y2) in pixels of the whole picture.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from detkit.types import Detection


def join(parts: Sequence[Detection]) -> Detection:
    """All boxes of some detections, in their order."""
    return {
        "boxes": torch.cat([part["boxes"] for part in parts]),
        "labels": torch.cat([part["labels"] for part in parts]),
        "scores": torch.cat([part["scores"] for part in parts]),
    }


def select(detection: Detection, which: Tensor) -> Detection:
    """Some boxes of a detection, by a mask or by numbers."""
    return {
        "boxes": detection["boxes"][which],
        "labels": detection["labels"][which],
        "scores": detection["scores"][which],
    }


def best_first(detection: Detection) -> Detection:
    """The boxes by falling score; equal ones keep their order."""
    return select(detection, detection["scores"].argsort(descending=True, stable=True))
