"""From which score on to keep the detections of a class: the cut with the best F1.

D detections of a class, C cuts: the different scores among them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DEFAULT_SCORE = 0.5  # for a class about which the ground truth says nothing


@dataclass(frozen=True)
class OperatingPoint:
    """The best cut of a class: keep what scores at least `score`."""

    score: float
    F1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Cuts:
    """What each cut of a class gives, highest score first; all (C,)."""

    scores: Floats
    precision: Floats
    recall: Floats
    F1: Floats

    def best(self) -> OperatingPoint | None:
        """The cut with the highest F1, of equal ones that with the highest score; None where nothing is found.

        Its score is halfway to the next lower one, so that rounding on another machine changes nothing.
        """
        if not self.F1.any():
            return None
        at = int(self.F1.argmax())
        below = self.scores[min(at + 1, len(self.scores) - 1)]
        score = float(self.scores[at] + below) / 2
        return OperatingPoint(score, float(self.F1[at]), float(self.precision[at]), float(self.recall[at]))


def cuts(scores: Floats, correct: NDArray[np.bool_], objects: int) -> Cuts:
    """Cuts of a class with so many objects, from scores (D,) and whether each detection has an object (D,).

    Objects are taken best score first (as COCO does), so that what is matched above a cut is the same with and without
    what lies below it.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.diff(ordered, append=-np.inf))  # equal scores are kept together
    right, kept = np.cumsum(correct[order])[last], last + 1
    return Cuts(ordered[last], right / kept, right / max(objects, 1), 2 * right / (kept + objects))
