"""`--score`: from which score on detections are shown."""

import torch
from torch import Tensor

from detkit.merging import select
from detkit.predict import Detector
from detkit.types import Detection


def chosen_threshold(score: str, detector: Detector) -> float | Tensor:
    """The number that `--score` gives, or, for `auto`, those of the checkpoint, by label (K,)."""
    if score == "auto":
        if detector.score_thresholds is None:
            raise ValueError(
                "--score auto: the checkpoint has no thresholds; `detkit eval --write-thresholds` adds them"
            )
        return torch.tensor(detector.score_thresholds)
    try:
        value = float(score)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"--score: expected auto or a number from 0 to 1, got {score!r}")
    return value


def above(detection: Detection, score: float | Tensor) -> Detection:
    """The part of a detection with at least the given score, one for all or one for each label (K,)."""
    return select(detection, detection["scores"] >= (score if isinstance(score, float) else score[detection["labels"]]))
