"""The confusion matrix as a table that can be read: of many classes those that are mixed up most.

K classes; K is background.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detkit.evaluation.diagnosis import Diagnosis

CLASSES = 12
PAIRS = 8
BACKGROUND = "background"


@dataclass(frozen=True)
class Cell:
    """A count, and its share of its row."""

    count: int
    share: float
    right: bool


@dataclass(frozen=True)
class ConfusionTable:
    """Rows and columns of the chosen classes, background last; the pairs that are confused most, of all classes."""

    names: list[str]
    rows: list[list[Cell]]
    pairs: list[tuple[str, str, int]]  # true, predicted, how often
    left_out: int  # classes


def confusion_table(diagnosis: Diagnosis) -> ConfusionTable:
    """Classes with most off-diagonal counts, background among them; in the order of the ground truth."""
    matrix, names = diagnosis.confusion, [c.name for c in diagnosis.classes]
    count = len(names)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    mixed = (wrong.sum(axis=0) + wrong.sum(axis=1))[:count]
    chosen = np.sort(np.argsort(-mixed, kind="stable")[:CLASSES])
    shown = [*chosen.tolist(), count]
    rows = [[_cell(matrix, row, column) for column in shown] for row in shown]
    return ConfusionTable([*(names[k] for k in chosen), BACKGROUND], rows, _pairs(wrong, names), count - len(chosen))


def _cell(matrix: NDArray[np.int64], row: int, column: int) -> Cell:
    return Cell(int(matrix[row, column]), float(matrix[row, column] / max(matrix[row].sum(), 1)), row == column)


def _pairs(wrong: NDArray[np.int64], names: list[str]) -> list[tuple[str, str, int]]:
    """Classes taken for each other, most often first; background is none."""
    between = wrong[:-1, :-1]
    order = np.argsort(-between, axis=None, kind="stable")[:PAIRS]
    places = zip(*np.unravel_index(order, between.shape), strict=True)
    return [(names[true], names[said], int(between[true, said])) for true, said in places if between[true, said]]
