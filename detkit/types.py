"""The plain values that travel between the parts: targets in, detections out, a batch in between.

N boxes of a picture, M ignore regions, P proposals, K classes. All boxes are (x1, y1, x2, y2) in pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Picture = NDArray[np.uint8]  # (H, W, 3) RGB


class Target(TypedDict):
    """What a picture shows. `ignore` holds crowd regions: neither object nor background."""

    boxes: Tensor  # (N, 4) float32
    labels: Tensor  # (N,) int64 in [0, K)
    ignore: NotRequired[Tensor]  # (M, 4) float32


class Detection(TypedDict):
    """What the detector found in a picture, best score first."""

    boxes: Tensor  # (N, 4) float32
    labels: Tensor  # (N,) int64 in [0, K)
    scores: Tensor  # (N,) float32 in (0, 1]


# Detections of each picture, in its own pixels: a detector, or what looks closer with one.
Detect = Callable[[Sequence[Picture]], list[Detection]]


class Proposals(TypedDict):
    """Class-agnostic candidates of the RPN for a picture, best score first."""

    boxes: Tensor  # (P, 4) float32
    scores: Tensor  # (P,) float32, objectness in (0, 1)


class Meta(TypedDict):
    """Where a picture comes from; height and width are those of the original file, before any resizing."""

    image_id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class Batch:
    """Pictures of any size, each (3, H, W) RGB, uint8 or float32 in 0..255, with their targets and origins."""

    images: list[Tensor]
    targets: list[Target]
    metas: list[Meta]

    def to(self, device: torch.device) -> "Batch":
        """Copy to `device`; asynchronous when the batch lies in pinned memory."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Copy to page-locked memory, as torch's DataLoader asks for with `pin_memory=True`."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, move: Callable[[Tensor], Tensor]) -> "Batch":
        targets = [{key: move(cast(Tensor, value)) for key, value in target.items()} for target in self.targets]
        return Batch([move(image) for image in self.images], targets, self.metas)  # type: ignore[arg-type]
