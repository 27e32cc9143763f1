"""What a detector gets wrong, by hotcoco's diagnoses, joined at one operating point.

The operating point keeps of each class what scores at least its best threshold (operating_point.py). All matches are at
IoU 0.5, best score first, as COCO makes them.
A annotations, D detections, K classes of the ground truth by category id, B bins of scores, R recall points (0 to 1).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detkit.evaluation.coco import hotcoco_evaluator, mean_known
from detkit.evaluation.columns import DetectionColumns, GroundTruth
from detkit.evaluation.operating_point import DEFAULT_SCORE, Cuts, OperatingPoint, cuts

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

IOU = 0.5
ERRORS = {
    "Cls": ("class", "right place, wrong class"),
    "Loc": ("localisation", "right class, IoU between 0.1 and 0.5"),
    "Both": ("both", "wrong class, IoU between 0.1 and 0.5"),
    "Dupe": ("duplicate", "right, but the object has a better detection"),
    "Bkg": ("background", "no object there"),
    "Miss": ("missed", "an object that no detection comes near"),
}  # TIDE (Bolya et al., 2020), section 2.2


@dataclass(frozen=True)
class ClassDiagnosis:
    """One class of the ground truth; AP is -1 where there is no such object."""

    category_id: int
    name: str
    objects: int  # crowd regions not counted
    AP: float
    AP50: float
    APs: float
    APm: float
    APl: float
    precision: dict[int, Floats]  # by IoU in percent, 50 and 75: (R,)
    cuts: Cuts
    point: OperatingPoint | None  # None where nothing of the class is found

    @property
    def threshold(self) -> float:
        """The score from which on its detections are kept."""
        return DEFAULT_SCORE if self.point is None else self.point.score


@dataclass(frozen=True)
class ErrorKind:
    """A kind of error of TIDE: how often it is made, and how much AP50 rises when all of them are put right."""

    name: str
    meaning: str
    count: int
    AP_lost: float


@dataclass(frozen=True)
class Calibration:
    """How far scores are from the share of detections that are right."""

    ECE: float  # mean distance, weighted by the number of detections
    MCE: float  # the largest
    confidence: Floats  # (B,) mean score
    accuracy: Floats  # (B,) share that is right
    counts: NDArray[np.int64]  # (B,)


@dataclass(frozen=True)
class Diagnosis:
    """See the top of the module; `kept`, `correct`, `ignored` are by detection, `match` by annotation."""

    classes: tuple[ClassDiagnosis, ...]
    errors: tuple[ErrorKind, ...]
    calibration: Calibration
    confusion: NDArray[np.int64]  # (K + 1, K + 1) at the operating point: rows are true, the last is background
    kept: Bools  # (D,) at the operating point
    correct: Bools  # (D,) has an object
    ignored: Bools  # (D,) lies on a crowd region, or beyond the 100 of a class in a picture
    match: NDArray[np.int64]  # (A,) the detection that found it at any score, -1: none

    @property
    def false_positives(self) -> Bools:
        """(D,) wrong at the operating point."""
        return self.kept & ~self.correct & ~self.ignored

    @property
    def found(self) -> Bools:
        """(A,) found at the operating point."""
        return (self.match >= 0) & np.append(self.kept, False)[self.match]


def diagnose(truth: GroundTruth, found: DetectionColumns) -> Diagnosis:
    """Look at detections beside the ground truth of the same pictures."""
    evaluator = hotcoco_evaluator(truth, found)
    evaluator.evaluate()
    evaluator.accumulate()
    status = evaluator.image_diagnostics(iou_thr=IOU)
    states = np.array([status["dt_status"].get(d, "") for d in range(1, len(found.scores) + 1)], dtype="U2")
    correct, ignored = states == "tp", states == ""
    match = np.array([status["gt_match"].get(a, 0) for a in range(1, len(truth.boxes) + 1)], np.int64) - 1
    precision = np.asarray(evaluator.eval["precision"])  # type: ignore[index]
    classes = tuple(
        _class(k, truth, found, precision[:, :, k, :, 2], correct, ~ignored) for k in range(len(truth.categories))
    )
    limits = {c.category_id: c.threshold for c in classes}
    kept = found.scores >= np.array([limits[c] for c in found.category_ids.tolist()], np.float64)
    kept_there = hotcoco_evaluator(truth, found.select(kept & ~ignored))
    every = max(len(found.scores), 1)  # hotcoco's own limit is 100 a picture over all classes
    confusion = kept_there.confusion_matrix(iou_thr=IOU, max_det=every)["matrix"].astype(np.int64)
    errors = _errors(evaluator.tide_errors(pos_thr=IOU))
    return Diagnosis(
        classes,
        errors,
        _calibration(evaluator.calibration(iou_threshold=IOU)),
        confusion,
        kept,
        correct,
        ignored,
        match,
    )


def _class(
    k: int, truth: GroundTruth, found: DetectionColumns, precision: Floats, correct: Bools, counted: Bools
) -> ClassDiagnosis:
    """Class k, from its precision (T, R, areas); see coco.py for the letters."""
    category = truth.categories[k]
    objects = int(((truth.category_ids == category["id"]) & ~truth.crowd).sum())
    own = (found.category_ids == category["id"]) & counted
    by_score = cuts(found.scores[own], correct[own], objects)
    small, medium, large = (mean_known(precision[:, :, area]) for area in (1, 2, 3))
    return ClassDiagnosis(
        category["id"],
        category["name"],
        objects,
        mean_known(precision[:, :, 0]),
        mean_known(precision[0, :, 0]),
        small,
        medium,
        large,
        {50: precision[0, :, 0], 75: precision[5, :, 0]},
        by_score,
        by_score.best(),
    )


def _errors(tide: dict[str, Any]) -> tuple[ErrorKind, ...]:
    return tuple(
        ErrorKind(name, meaning, int(tide["counts"][key]), float(tide["delta_ap"][key]))
        for key, (name, meaning) in ERRORS.items()
    )


def _calibration(values: dict[str, Any]) -> Calibration:
    bins = values["bins"]
    return Calibration(
        float(values["ece"]),
        float(values["mce"]),
        np.array([b["avg_confidence"] for b in bins]),
        np.array([b["avg_accuracy"] for b in bins]),
        np.array([b["count"] for b in bins], np.int64),
    )
