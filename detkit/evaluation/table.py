"""Scores as tables for the terminal."""

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from detkit.evaluation.coco import ClassScore

EXPLANATIONS: dict[str, str] = {
    "AP": "average precision, mean over IoU 0.50 to 0.95",
    "AP50": "at IoU 0.50: found at all",
    "AP75": "at IoU 0.75: found with a tight box",
    "APs": "small objects, area below 32 x 32 pixels",
    "APm": "medium objects",
    "APl": "large objects, area above 96 x 96 pixels",
    "AR1": "recall with 1 detection per picture and class",
    "AR10": "recall with 10",
    "AR100": "recall with 100",
    "ARs": "recall of small objects",
    "ARm": "recall of medium objects",
    "ARl": "recall of large objects",
}
_NOTE = "-: no such objects in the ground truth"


def metrics_table(metrics: Mapping[str, float]) -> Table:
    """The 12 numbers of COCO, each with its meaning; one that COCO leaves open (-1) is shown as '-'."""
    table = Table(title="COCO metrics", caption=_note(*metrics.values()))
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("meaning", style="dim")
    for name, value in metrics.items():
        table.add_row(name, _number(value), EXPLANATIONS.get(name, ""), end_section=name in ("AP75", "APl", "AR100"))
    return table


def class_table(classes: Mapping[str, ClassScore]) -> Table:
    """Each class's scores and the number of its boxes in the ground truth."""
    table = Table(title="per class", caption=_note(*(score.AP for score in classes.values())))
    table.add_column("class")
    for column in ("boxes", "AP", "AP50", "AR100"):
        table.add_column(column, justify="right")
    for name, score in classes.items():
        numbers = (_number(value) for value in (score.AP, score.AP50, score.AR100))
        table.add_row(escape(name), str(score.boxes), *numbers)
    return table


def _number(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"


def _note(*values: float) -> str | None:
    return _NOTE if any(value < 0 for value in values) else None
