"""The report as one HTML file."""

import math
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np

from detkit import __version__
from detkit.evaluation.table import EXPLANATIONS
from detkit.pages import render_page, svg_uri
from detkit.report.confusion import confusion_table
from detkit.report.earlier import Earlier
from detkit.report.galleries import Galleries
from detkit.report.inspection import Inspection
from detkit.report.objects import FATES, MEANINGS, SIZES
from detkit.report.plots import Labelled, coloured, f1_over_score, precision_recall, reliability
from detkit.report.watch import PROPOSALS
from detkit.visualize import class_colour

Json = dict[str, Any]


def render(title: str, inspection: Inspection, earlier: Sequence[Earlier] = ()) -> str:
    """The page as text. `title`: the checkpoint."""
    galleries, classes = Galleries(inspection), labelled(inspection)
    index, diagnosis = inspection.scored.index, inspection.diagnosis
    return render_page(
        "report/page.html",
        {"number": number, "signed": signed, "percent": percent, "rgb": rgb},
        title=title,
        index=index,
        objects=len(inspection.objects.rows),
        about=f"detkit {__version__}, {date.today().isoformat()}",
        short=list(in_short(inspection)),
        scores=scores(inspection, earlier),
        earlier=earlier,
        data=(len(index), inspection.scored.boxes),
        classes=sorted(classes, key=lambda item: item[1].AP),
        absent=absent(inspection),
        legend=coloured(classes),
        curves={name: svg_uri(drawing) for name, drawing in curves(inspection, classes).items()},
        errors=diagnosis.errors,
        most_lost=max([error.AP_lost for error in diagnosis.errors] + [1e-9]),
        confusion=confusion_table(diagnosis),
        calibration=diagnosis.calibration,
        fates=MEANINGS,
        proposals=PROPOSALS,
        seen=inspection.watch.seen,
        sizes=sizes(inspection),
        levels=levels(inspection),
        speed=inspection.as_json()["speed"],
        short_side=inspection.detector.short_side,
        parameters=sum(p.numel() for p in inspection.detector.model.parameters()),
        worst=galleries.worst_pictures(),
        false_positives=galleries.false_positives(),
        missed=list(galleries.missed()),
    )


def labelled(inspection: Inspection) -> list[Labelled]:
    """The classes of the split with their labels, which give their colours."""
    labels = {category_id: label for label, category_id in enumerate(inspection.scored.index.category_ids)}
    return [(labels[c.category_id], c) for c in inspection.diagnosis.classes]


def absent(inspection: Inspection) -> list[str]:
    """The classes of the detector that the split does not show."""
    shown = {c.category_id for c in inspection.diagnosis.classes if c.objects}
    index = inspection.scored.index
    known = zip(index.classes, index.category_ids, inspection.detector.category_ids, strict=True)
    return [name for name, number, own in known if number not in shown and own is not None]


def scores(inspection: Inspection, earlier: Sequence[Earlier]) -> list[Json]:
    """COCO's numbers, each with its meaning, and with what each earlier run has."""
    return [
        {
            "name": name,
            "meaning": EXPLANATIONS[name],
            "value": value,
            "others": [run.metrics.get(name) for run in earlier],
        }
        for name, value in inspection.scored.evaluation.metrics.items()
    ]


def curves(inspection: Inspection, classes: Sequence[Labelled]) -> dict[str, str]:
    """SVGs by name."""
    return {
        "precision over recall at IoU 0.50": precision_recall(classes, 50),
        "precision over recall at IoU 0.75": precision_recall(classes, 75),
        "F1 over the score threshold": f1_over_score(classes),
        "calibration": reliability(inspection.diagnosis.calibration),
    }


def sizes(inspection: Inspection) -> list[Json]:
    """What became of all objects and of those of each size, and how many the RPN proposes."""
    objects = inspection.objects
    parts = {"all": np.ones(len(objects.rows), bool), **{size: objects.of_size(size) for size in SIZES}}
    return [
        {"name": name, "count": int(part.sum()), "fates": objects.fate_counts(part), "recall": objects.rpn_recall(part)}
        for name, part in parts.items()
    ]


def levels(inspection: Inspection) -> list[Json]:
    """What became of the objects of each level that the RoI head sees."""
    objects, strides = inspection.objects, inspection.detector.model.roi_head.pooler.strides
    rows = []
    for level, stride in enumerate(strides):
        part = objects.levels == level
        rows.append({"name": f"stride {stride}", "count": int(part.sum()), "fates": objects.fate_counts(part)})
    return rows


def in_short(inspection: Inspection) -> list[str]:
    """The main things in a few sentences."""
    objects, diagnosis = inspection.objects, inspection.diagnosis
    count = len(objects.rows)
    if not count:
        return ["The split has no objects: nothing can be scored."]
    if not len(inspection.found.scores):
        limit = inspection.detector.config.model.score_threshold
        return [
            f"No detection scores model.score_threshold={limit:g} or more: nothing was found, and there is nothing to"
            " say about errors and scores."
        ]
    fates = objects.fate_counts(np.ones(count, bool))
    lost = {fate: fates[fate] for fate in FATES[1:]}
    told = [
        f"{fates['found']} of {count} objects are found at each class's best score threshold,"
        f" with {int(diagnosis.false_positives.sum())} false positives.",
        f"Of the {sum(lost.values())} others the RPN did not propose {lost['RPN']}, the RoI head lost {lost['head']},"
        f" and the score is below the threshold for {lost['low score']}.",
    ]
    worst_error = max(diagnosis.errors, key=lambda error: error.AP_lost)
    if worst_error.AP_lost > 0:
        told.append(f"Most AP50 is lost to errors of kind {worst_error.name}: {worst_error.AP_lost:.3f}.")
    known = [c for c in diagnosis.classes if c.objects]
    worst, best = min(known, key=lambda c: c.AP), max(known, key=lambda c: c.AP)
    if worst.AP < best.AP:
        told.append(
            f"The weakest class is {worst.name} (AP {worst.AP:.3f}), the strongest {best.name} ({best.AP:.3f})."
        )
    return told


def number(value: float | None) -> str:
    """Three digits; a dash for what is not known: -1, nan, None."""
    return "–" if value is None or math.isnan(value) or value < 0 else f"{value:.3f}"


def signed(value: float, other: float | None) -> str:
    """How much more than an earlier value."""
    if other is None or min(value, other) < 0:
        return ""
    change = f"{value - other:+.3f}"
    return change.lstrip("+-") if float(change) == 0 else change


def percent(part: float, whole: float) -> str:
    """A width for the style of a bar."""
    return f"{100 * max(part, 0) / whole if whole > 0 else 0:.1f}%"


def rgb(label: int) -> str:
    """The colour of a class's boxes, for a style."""
    return "rgb({}, {}, {})".format(*class_colour(label))
