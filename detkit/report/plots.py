"""The curves of a report as SVG, each as wide as a phone. Class names are not in them: the page has the legend."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np

from detkit.evaluation.diagnosis import Calibration, ClassDiagnosis
from detkit.visualize import class_colour

SIZE = (3.6, 2.9)  # inches
COLOURED = 10  # curves that eyes can tell apart
WORST = 5  # of more classes, these have a colour
GREY = "#bbbbbb"

Labelled = tuple[int, ClassDiagnosis]  # the label gives the colour


def coloured(classes: Sequence[Labelled]) -> list[Labelled]:
    """The classes whose curves have the colour of their boxes: all, or of many the worst; the others are grey."""
    known = [(label, c) for label, c in classes if c.objects]
    return known if len(known) <= COLOURED else sorted(known, key=lambda item: item[1].AP)[:WORST]


def precision_recall(classes: Sequence[Labelled], iou: int) -> str:
    """Precision over recall of each class at an IoU of 50 or 75 percent; black: the mean over the classes."""

    def draw(panel: Any) -> None:
        recall = np.linspace(0, 1, 101)
        known = [c.precision[iou] for _, c in classes if c.objects]
        _curves(panel, classes, lambda c: (recall, c.precision[iou]))
        if len(known) > 1:
            panel.plot(recall, np.mean(known, axis=0), color="black", linewidth=2)
        panel.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.03), title=f"IoU 0.{iou}")

    return _svg(draw)


def f1_over_score(classes: Sequence[Labelled]) -> str:
    """F1 of each class over the score from which on detections are kept; dots: the best."""

    def draw(panel: Any) -> None:
        # a cut keeps its F1 down to the next lower score
        _curves(panel, classes, lambda c: (c.cuts.scores, c.cuts.F1), drawstyle="steps-post")
        for label, c in coloured(classes):
            if c.point is not None:
                panel.plot(c.point.score, c.point.F1, "o", color=_colour(label), markersize=5)
        panel.set(xlabel="score threshold", ylabel="F1", xlim=(0, 1), ylim=(0, 1.03), title="F1 at IoU 0.50")

    return _svg(draw)


def reliability(calibration: Calibration) -> str:
    """The share of detections that are right over their score; on the dashed line both are equal."""

    def draw(panel: Any) -> None:
        bins = len(calibration.counts)
        left, some = np.arange(bins) / bins, calibration.counts > 0
        panel.bar(left[some], calibration.accuracy[some], 1 / bins, align="edge", color="#3b6ea5", edgecolor="white")
        panel.plot((0, 1), (0, 1), linestyle="--", color="0.3", linewidth=1)
        panel.set(xlabel="score", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.03), title="calibration")

    return _svg(draw)


def _curves(
    panel: Any,
    classes: Sequence[Labelled],
    points: Callable[[ClassDiagnosis], tuple[Any, Any]],
    drawstyle: str = "default",
) -> None:
    """A line for each class that has objects: those with a colour on top."""
    chosen = coloured(classes)
    names = {c.category_id for _, c in chosen}
    for _, c in classes:
        if c.objects and c.category_id not in names:
            panel.plot(*points(c), color=GREY, linewidth=0.8, drawstyle=drawstyle)
    for label, c in chosen:
        panel.plot(*points(c), color=_colour(label), linewidth=1.4, drawstyle=drawstyle)


def _colour(label: int) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in class_colour(label))


def _svg(draw: Callable[[Any], None]) -> str:
    from matplotlib.figure import Figure  # slow to import, so only when drawing

    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "detkit", "font.size": 9}):
        figure = Figure(figsize=SIZE, layout="constrained")
        panel = figure.subplots()
        draw(panel)
        panel.title.set_fontsize(10)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
