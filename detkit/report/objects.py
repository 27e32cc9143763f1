"""What became of each object: found, or lost by the RPN or by the RoI head.

O objects of a split, crowd regions not among them; Q numbers of proposals.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from detkit.data.coco import CocoIndex
from detkit.evaluation.diagnosis import IOU, Diagnosis
from detkit.report.watch import PROPOSALS, Proposed

Bools = NDArray[np.bool_]
Fate = Literal["found", "low score", "head", "RPN"]
FATES: tuple[Fate, ...] = get_args(Fate)
MEANINGS: dict[Fate, str] = {
    "found": "a detection above its class's threshold",
    "low score": "a detection, but below the threshold",
    "head": "proposed by the RPN, but the RoI head gave it no box or another class",
    "RPN": f"the RoI head saw no proposal with IoU {IOU}",
}
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}  # COCO's, px


@dataclass(frozen=True)
class Objects:
    """Columns over the objects of a split, picture by picture."""

    rows: NDArray[np.int64]  # (O,) in the arrays of the index
    pictures: NDArray[np.int64]  # (O,) place of the picture in the index
    labels: NDArray[np.int64]  # (O,)
    boxes: NDArray[np.float32]  # (O, 4) x1 y1 x2 y2, px of the original picture
    areas: NDArray[np.float64]  # (O,) px
    levels: NDArray[np.int64]  # (O,)
    best_iou: NDArray[np.float32]  # (O, Q + 1) as in Proposed
    fates: NDArray[np.int64]  # (O,) number of the fate in FATES

    def of_size(self, name: str) -> Bools:
        """(O,) whether an object is small, medium or large by COCO's measure."""
        low, high = SIZES[name]
        return (self.areas >= low) & (self.areas < high)

    def fate_counts(self, chosen: Bools) -> dict[Fate, int]:
        """How many of the chosen (O,) met each fate."""
        counts = np.bincount(self.fates[chosen], minlength=len(FATES)).tolist()
        return dict(zip(FATES, counts, strict=True))

    def rpn_recall(self, chosen: Bools) -> list[float]:
        """Share of the chosen that some of the best 100, 300, 1000 proposals meets with IoU 0.5; nan without objects.

        Last comes the mean over IoU 0.50, 0.55, ..., 0.95 with 1000 proposals. A proposal may meet several objects.
        """
        if not chosen.any():
            return [np.nan] * (len(PROPOSALS) + 1)
        iou = self.best_iou[chosen, : len(PROPOSALS)]
        strict = iou[:, -1, None] >= np.linspace(0.5, 0.95, 10)
        return [*(iou >= IOU).mean(axis=0).tolist(), float(strict.mean())]


def trace_objects(index: CocoIndex, diagnosis: Diagnosis, proposed: Mapping[int, Proposed]) -> Objects:
    """The objects of an index, from a diagnosis of its own rows, and from what was proposed by image id."""
    rows = np.flatnonzero(~index.crowd)
    pictures = np.repeat(np.arange(len(index)), np.diff(index.offsets))[rows]
    notes = [proposed[int(image_id)] for image_id in index.image_ids]
    iou = np.concatenate([note.best_iou.numpy() for note in notes])
    levels = np.concatenate([note.levels.numpy() for note in notes])
    found, at_any_score = diagnosis.found[rows], diagnosis.match[rows] >= 0
    fates = np.select([found, at_any_score, iou[:, -1] >= IOU], [0, 1, 2], default=3)
    return Objects(
        rows, pictures, index.labels[rows], index.boxes[rows], index.areas[rows], levels, iou, fates.astype(np.int64)
    )
