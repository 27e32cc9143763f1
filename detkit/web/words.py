"""What the page says, as HTML. Names come from checkpoints and visitors: all of them are escaped."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from detkit.pages import render_page
from detkit.predict import Detector
from detkit.visualize import class_colour, text_colour
from detkit.web.session import Choice, Found

METRICS = {
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "APs": "small",
    "APm": "medium",
    "APl": "large",
    "AR100": "AR100",
}


def title(detector: Detector, name: str) -> str:
    """The head of the page: whose it is, and how good in one line."""
    ap = detector.evaluation.get("AP", -1)
    return _render("title", name=name, backbone=detector.config.model.backbone.name, ap=ap if ap >= 0 else None)


def card(detector: Detector, name: str) -> str:
    """The model card: how good the weights are, and which classes they know."""
    evaluation = detector.evaluation
    metrics = [(title, evaluation[key]) for key, title in METRICS.items() if evaluation.get(key, -1) >= 0]
    facts = {
        "checkpoint": name,
        "backbone": detector.config.model.backbone.name,
        "parameters": f"{sum(p.numel() for p in detector.model.parameters()) / 1e6:.1f} million",
        "picture size": f"shorter side {detector.short_side} px",
        "computes on": f"{detector.device}, {detector.precision}",
    }
    if "step" in evaluation:
        facts["trained"] = f"{evaluation['step']:,.0f} steps"
    known = [label for label, number in enumerate(detector.category_ids) if number is not None]
    return _render("card", facts=facts, metrics=metrics, classes=[_class(detector, label) for label in known])


def summary(found: Found, choice: Choice, detector: Detector) -> str:
    """How many boxes are shown of how many, each in a table, best score first."""
    shown = choice.of(found.detection)
    counts = Counter(detector.classes[label] for label in shown["labels"].tolist())
    columns = zip(shown["labels"].tolist(), shown["scores"].tolist(), shown["boxes"].tolist(), strict=True)
    rows = [
        {"class": _class(detector, label), "score": f"{score:.2f}",
         "box": [round(x1), round(y1), round(x2 - x1), round(y2 - y1)]}
        for label, score, (x1, y1, x2, y2) in columns
    ]  # fmt: skip
    return _render(
        "found", rows=rows, all=len(found.detection["boxes"]), lowest=detector.config.model.score_threshold,
        name=found.name, size=found.size, counts=counts.most_common(), milliseconds=round(1000 * found.seconds),
    )  # fmt: skip


def refusals(lines: Sequence[str]) -> str:
    """Which files were not taken, and why."""
    return _render("refused", lines=lines) if lines else ""


def _class(detector: Detector, label: int) -> dict[str, str]:
    colour = class_colour(label)
    return {"name": detector.classes[label], "fill": _css(colour), "ink": _css(text_colour(colour))}


def _css(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _render(part: str, **values: Any) -> str:
    return render_page("web/words.html", part=part, **values)
