"""Big pictures in overlapping tiles, so that small objects reach the detector as large as it knows them.

The whole picture is looked at as well, since what is larger than a tile is whole nowhere else.

Merging is our own. sahi's (0.12.8) comes with opencv-python, which overwrites the headless OpenCV that detkit runs on.
And NMS cannot do it: neither IoU nor the intersection over the smaller box knows that a tile saw a part only, so a sure
half of an object displaces the whole one, or a small object before a large one is taken for its half. Here a box at an
inner edge of its tile counts as cut, and two boxes are of one object if they agree where both of their views looked.

N boxes of all views together, (x1, y1, x2, y2) in pixels of the picture, as are windows: what a view looked at.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detkit.boxes import pairwise_intersection
from detkit.merging import best_first, join
from detkit.types import Detect, Detection, Picture

Window = tuple[int, int, int, int]

CUT = 0.02  # of the tile's side: boxes that end so near to an inner edge may go on behind it
ROWS = 256  # of the table of pairs at a time, for what a picture of hundreds of tiles takes


def sliced(detect: Detect, size: int, overlap: float = 0.2, iou: float = 0.5, batch_size: int = 4) -> Detect:
    """`detect` on tiles of `size` px that share at least `overlap` of it, and on the whole, merged.

    A picture that is no larger than a tile gets exactly what `detect` finds. `iou`: from where on two boxes agree;
    `batch_size`: tiles at a time.
    """

    def look(picture: Picture) -> Detection:
        height, width = picture.shape[:2]
        found = list(detect([picture]))
        windows = tiles(height, width, size, overlap)
        if len(windows) == 1:
            return found[0]
        for first in range(0, len(windows), batch_size):
            found += detect([picture[y1:y2, x1:x2] for x1, y1, x2, y2 in windows[first : first + batch_size]])
        return merge_windows([(0, 0, width, height), *windows], found, iou)

    return lambda pictures: [look(picture) for picture in pictures]


def tiles(height: int, width: int, size: int, overlap: float) -> list[Window]:
    """Windows that cover a picture: evenly spread, the last ones flush with its edges; one where all of it fits."""
    return [
        (x, y, min(x + size, width), min(y + size, height))
        for y in _starts(height, size, overlap)
        for x in _starts(width, size, overlap)
    ]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    if length <= size:
        return [0]
    stride = max(1, size - math.ceil(size * overlap))
    steps = math.ceil((length - size) / stride)
    return [step * (length - size) // steps for step in range(steps + 1)]


def merge_windows(windows: Sequence[Window], found: Sequence[Detection], iou: float = 0.5) -> Detection:
    """One box for each object, from what was found in each window, in its pixels; the first is the whole picture.

    Of complete boxes of a class that overlap by more than `iou` the one with the best score stays, as in NMS. A cut box
    that agrees with a complete one is a part of it; what cut boxes remain, and agree with each other, become the box
    around them. Either way the best score counts.
    """
    views = torch.tensor(windows, dtype=torch.float32)
    counts = torch.tensor([len(part["boxes"]) for part in found])
    window = views.repeat_interleave(counts, dim=0)
    every = join(found)
    boxes = every["boxes"] + window[:, :2].repeat(1, 2)
    cut = _is_cut(boxes, window, views[0])
    order = torch.argsort(every["scores"] - 2 * cut.float(), descending=True, stable=True)  # complete ones first
    boxes, cut, window = boxes[order], cut[order], window[order]
    labels, scores = every["labels"][order], every["scores"][order]
    # A complete box is all of its object, as if the whole picture had been looked at.
    partners = _partners(boxes, torch.where(cut[:, None], window, views[0]), labels, iou)
    owner = torch.tensor(_owners(partners, cut.tolist()), dtype=torch.int64)
    return _one_each(boxes, labels, scores, cut, owner)


def _is_cut(boxes: Tensor, window: Tensor, picture: Tensor) -> Tensor:
    """(N,) whether a box reaches an edge of its window (N, 4) that is not one of the picture (4,)."""
    near = CUT * (window[:, 2:] - window[:, :2]).repeat(1, 2)
    return (((boxes - window).abs() <= near) & (window != picture)).any(dim=1)


def _partners(boxes: Tensor, window: Tensor, labels: Tensor, iou: float) -> list[list[int]]:
    """For each box those of its class that agree with it: by the IoU of what of each lies in the other's window."""
    partners: list[list[int]] = [[] for _ in boxes]
    for first in range(0, len(boxes), ROWS):
        rows = slice(first, first + ROWS)
        near = (pairwise_intersection(boxes[rows], boxes) > 0) & (labels[rows, None] == labels)
        a, b = near.nonzero().unbind(dim=1)
        a = a + first
        shared = _shared(boxes[a], boxes[b])
        parts = _shared(boxes[a], window[b]) + _shared(boxes[b], window[a])
        agree = shared > iou * (parts - shared)
        for box, other in zip(a[agree].tolist(), b[agree].tolist(), strict=True):
            partners[box].append(other)
    return partners


def _shared(a: Tensor, b: Tensor) -> Tensor:
    """Areas (P,) that boxes a (P, 4) share with boxes b (P, 4), pair by pair."""
    return (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)


def _owners(partners: Sequence[Sequence[int]], cut: Sequence[bool]) -> list[int]:
    """For each box, complete ones first and best first, the number of the box that stands for its object."""
    owner = [-1] * len(partners)
    for box in range(len(partners)):
        waiting = [box] if owner[box] < 0 else []
        while waiting:
            member = waiting.pop()
            owner[member] = box
            # complete boxes join the best one alone, as in NMS; cut ones also what joined it
            waiting += [other for other in partners[member] if owner[other] < 0 and (member == box or cut[other])]
    return owner


def _one_each(boxes: Tensor, labels: Tensor, scores: Tensor, cut: Tensor, owner: Tensor) -> Detection:
    """The box of each owner: its own where that is complete, the one around all it owns where it is cut."""
    index = owner[:, None].expand(-1, 2)
    low = boxes[:, :2].scatter_reduce(0, index, boxes[:, :2], "amin")
    high = boxes[:, 2:].scatter_reduce(0, index, boxes[:, 2:], "amax")
    around = torch.where(cut[:, None], torch.cat((low, high), dim=1), boxes)
    best = scores.scatter_reduce(0, owner, scores, "amax")
    owners = (owner == torch.arange(len(owner))).nonzero()[:, 0]
    return best_first({"boxes": around[owners], "labels": labels[owners], "scores": best[owners]})
