"""One pass of a detector over a split, and all that is told about it."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detkit.data.loader import EpochLoader
from detkit.evaluation.coco import Backend
from detkit.evaluation.columns import DetectionColumns, read_detections, read_ground_truth
from detkit.evaluation.diagnosis import Diagnosis, diagnose
from detkit.evaluation.operating_point import DEFAULT_SCORE
from detkit.predict import Detector
from detkit.report.objects import SIZES, Objects, trace_objects
from detkit.report.watch import PROPOSALS, Watch
from detkit.validation import Scored, score_batches

Json = dict[str, Any]


@dataclass(frozen=True)
class Inspection:
    """What a detector did on a split."""

    detector: Detector
    scored: Scored
    found: DetectionColumns  # the rows of `scored` as columns
    diagnosis: Diagnosis
    objects: Objects
    watch: Watch
    batch_size: int

    def thresholds(self) -> list[float]:
        """From which score on to keep each label; `DEFAULT_SCORE` where the split does not tell."""
        known = {c.category_id: c.threshold for c in self.diagnosis.classes}
        return [DEFAULT_SCORE if i is None else known[i] for i in self.scored.index.category_ids]

    def as_json(self) -> Json:
        """The numbers beyond COCO's, as plain data; null where there are no such objects."""
        diagnosis, objects, every = self.diagnosis, self.objects, np.ones(len(self.objects.rows), bool)
        parts = {"all": every, **{size: objects.of_size(size) for size in SIZES}}
        columns = (*(f"recall@{count}" for count in PROPOSALS), f"average_recall@{PROPOSALS[-1]}")
        strides = self.detector.model.roi_head.pooler.strides
        calibration = diagnosis.calibration
        return {
            "thresholds": {c.name: None if c.point is None else asdict(c.point) for c in diagnosis.classes},
            "sizes": {c.name: {k: _known(getattr(c, k)) for k in ("APs", "APm", "APl")} for c in diagnosis.classes},
            "errors": {e.name: {"count": e.count, "AP_lost": e.AP_lost} for e in diagnosis.errors},
            "confusion": {"classes": [c.name for c in diagnosis.classes], "matrix": diagnosis.confusion.tolist()},
            "calibration": {"ECE": calibration.ECE, "MCE": calibration.MCE},
            "rpn": {
                name: dict(zip(columns, map(_known, objects.rpn_recall(part)), strict=True))
                for name, part in parts.items()
            },
            "objects": {name: objects.fate_counts(part) for name, part in parts.items()},
            "levels": [
                {"stride": stride, **objects.fate_counts(objects.levels == level)}
                for level, stride in enumerate(strides)
            ],
            "speed": {
                "seconds_per_picture": self.watch.seconds / max(self.watch.pictures, 1),
                "pictures": self.watch.pictures,
                "batch_size": self.batch_size,
                "device": str(self.detector.device),
                "precision": self.detector.precision,
            },
        }


def inspect(
    detector: Detector,
    loader: EpochLoader,
    batch_size: int,
    backend: Backend = "hotcoco",
    progress: Callable[[int], None] | None = None,
) -> Inspection:
    """Run a detector over all pictures of a loader, score it by COCO's metrics and look at what it got wrong.

    The diagnosis is made on the annotations as they are used: checked, clipped to the pictures.
    """
    watch = Watch(detector)
    scored = score_batches(watch, loader, backend, progress)
    truth = read_ground_truth(scored.index.as_coco())
    found = read_detections(scored.rows, truth, scored.index.image_ids.tolist())
    diagnosis = diagnose(truth, found)
    objects = trace_objects(scored.index, diagnosis, watch.proposed)
    return Inspection(detector, scored, found, diagnosis, objects, watch, batch_size)


def _known(value: float) -> float | None:
    return None if math.isnan(value) or value < 0 else value
