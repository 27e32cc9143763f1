"""Do the anchors of a config fit the boxes, and which levels of the pyramid do the boxes go to.

A boxes, L levels, R aspect ratios. Boxes are x1 y1 x2 y2 in pixels of the resized pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detkit.boxes import box_area, scale_boxes
from detkit.build import build_detector
from detkit.config import Config
from detkit.data.resize import median_short_side, resized_size
from detkit.doctor.findings import Findings, Place
from detkit.doctor.table import Table
from detkit.models.anchors import cell_anchors

MISFIT = 0.1  # share of boxes without an anchor from which the doctor warns
LARGEST_SAMPLE = 20_000  # boxes, spread evenly, are enough for shares to a tenth of a percent


@dataclass(frozen=True)
class Fit:
    """How anchors fit boxes. `missed`: shares of the boxes whose best anchor overlaps them by less than 0.5 and 0.7."""

    sizes: tuple[float, ...]
    missed: tuple[float, float]


def check_anchors(table: Table, config: Config, findings: Findings) -> None:
    """Compare the boxes of the training split, resized as the config trains, with its anchors and levels."""
    boxes, shapes = resized_boxes(table, config)
    if not len(boxes):
        return
    with torch.device("meta"):  # only the shape of the net matters here
        model = build_detector(config.model, 1, pretrained=False)
    strides, ratios = model.rpn.anchors.strides, config.model.rpn.anchor_ratios
    now = fit(boxes, shapes, strides, model.rpn.anchors.sizes, ratios)
    better = fit(boxes, shapes, strides, suggested_sizes(boxes, len(strides)), ratios)
    detail = f"anchors {_listed(now.sizes)} px: {_shares(now)}"
    if better.missed < now.missed:
        detail += f"; model.rpn.anchor_sizes={_listed(better.sizes)}: {_shares(better)}"
    else:
        detail += "; no other sizes were found to fit better"
    findings.add("anchor-fit", Place(table.file, f"{config.name}, {detail}", split=table.name))
    if now.missed[0] > MISFIT:
        findings.add("anchor-misfit", Place(table.file, detail, split=table.name))
    levels = torch.bincount(model.roi_head.pooler.levels(boxes), minlength=len(model.roi_head.pooler.strides))
    counted = ", ".join(
        f"stride {stride}: {100 * count / len(boxes):.0f} %"
        for stride, count in zip(model.roi_head.pooler.strides, levels.tolist(), strict=True)
    )
    findings.add("fpn-levels", Place(table.file, f"{config.name}, {counted}", split=table.name))


def resized_boxes(table: Table, config: Config) -> tuple[Tensor, Tensor]:
    """Usable boxes (A, 4) at each training scale, and the (height, width) of their pictures, (A, 2) px."""
    rows = np.flatnonzero(table.usable & ~table.crowd)
    rows = rows[:: max(1, len(rows) // LARGEST_SAMPLE)]
    if not len(rows):
        return torch.zeros(0, 4), torch.zeros(0, 2)
    side = config.data.short_side
    side = median_short_side(table.heights, table.widths) if side == "auto" else side
    boxes, shapes = [], []
    for scale in config.data.train_scales:
        short = max(round(side * scale), 1)
        for row in rows.tolist():
            place = table.places[row]
            before = int(table.heights[place]), int(table.widths[place])
            after = resized_size(*before, short, config.data.long_side, config.data.resize)
            box = torch.from_numpy(table.clipped[row])[None]
            boxes.append(scale_boxes(box, after[0] / before[0], after[1] / before[1]))
            shapes.append(after)
    return torch.cat(boxes).float(), torch.tensor(shapes, dtype=torch.float32)


def fit(boxes: Tensor, shapes: Tensor, strides: Sequence[int], sizes: Sequence[float], ratios: Sequence[float]) -> Fit:
    """How anchors of one size a level fit boxes (A, 4) in pictures of `shapes` (A, 2)."""
    best = best_overlaps(boxes, shapes, strides, sizes, ratios)
    missed = [float((best < threshold).float().mean()) for threshold in (0.5, 0.7)]
    return Fit(tuple(sizes), (missed[0], missed[1]))


def best_overlaps(
    boxes: Tensor, shapes: Tensor, strides: Sequence[int], sizes: Sequence[float], ratios: Sequence[float]
) -> Tensor:
    """The largest IoU (A,) of each box with any anchor of any cell.

    An anchor of given size overlaps a box most when their centres are nearest, so one cell a level is enough.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    best = torch.zeros(len(boxes))
    for stride, size in zip(strides, sizes, strict=True):
        last = torch.ceil(shapes.flip(1) / stride) - 1
        cells = torch.minimum((centres / stride).round().clamp(min=0), last) * stride
        for cell in cell_anchors(size, ratios):
            anchors = cells.repeat(1, 2) + cell
            shared = (torch.minimum(boxes[:, 2:], anchors[:, 2:]) - torch.maximum(boxes[:, :2], anchors[:, :2])).clamp(
                0
            )
            overlap = shared.prod(1)
            best = torch.maximum(best, overlap / (box_area(boxes) + box_area(anchors) - overlap))
    return best


def suggested_sizes(boxes: Tensor, count: int) -> tuple[float, ...]:
    """`count` sizes in whole pixels, finest first: centres of clusters (k-means) of the logarithms of sqrt(area)."""
    from scipy.cluster.vq import kmeans2  # half a second, which commands without the doctor should not pay

    logs: NDArray[np.float64] = np.log(np.sqrt(box_area(boxes).clamp(min=1).numpy().astype(np.float64)))
    start = np.unique(np.quantile(logs, (np.arange(count) + 0.5) / count, method="nearest"))
    centres, _ = kmeans2(logs[:, None], start[:, None], minit="matrix", missing="warn")
    sizes = sorted({float(round(size)) for size in np.exp(centres[:, 0])})
    while len(sizes) < count:  # boxes of few sizes: the levels that are left take larger ones
        sizes.append(2 * sizes[-1])
    return tuple(sizes)


def _listed(sizes: Sequence[float]) -> str:
    return "(" + ",".join(f"{size:g}" for size in sizes) + ")"


def _shares(found: Fit) -> str:
    return f"{100 * found.missed[0]:.1f} % of the boxes below IoU 0.5, {100 * found.missed[1]:.1f} % below 0.7"
