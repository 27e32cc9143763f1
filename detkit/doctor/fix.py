"""A repaired copy of the annotations, driven by the findings; the input is never touched.

Rows keep what else they hold: polygons, licences, keys of other tools.
"""

import copy
import math
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from detkit.data.parse_values import is_int
from detkit.doctor.findings import Findings, Place
from detkit.doctor.table import Table

DROPS = {
    "image": (
        *("malformed-image", "duplicate-image-id", "missing-picture", "path-outside", "unreadable-picture"),
        "leaked-picture",
    ),
    "annotation": (
        *("malformed-annotation", "unknown-image", "unknown-category", "malformed-box", "nonfinite-box"),
        *("empty-box", "outside-box", "duplicate-box"),
    ),
    "category": ("malformed-category",),
}
LISTS = {"image": "images", "annotation": "annotations", "category": "categories"}
NOT_REPAIRED = ("unreadable-annotations", "empty-split", "category-not-in-train")
SAME_SHAPE = 0.02  # by which the scales of width and height may differ in a picture that was resized


def repair(table: Table, findings: Findings) -> tuple[dict[str, list[Any]], list[str]]:
    """The content of a split with what can be repaired, and a line for each kind of change."""
    content = copy.deepcopy(table.split.content)
    changes: Counter[str] = Counter()
    _convert_boxes(table, content, findings, changes)
    _rescale(table, content, _of(table, findings, ["size-mismatch"]), changes)
    _clip(table, content, _of(table, findings, ["overhanging-box"]), changes)
    for place in _of(table, findings, ["wrong-area"]):
        row = content["annotations"][_row(place)]
        row["area"] = row["bbox"][2] * row["bbox"][3]
        changes["areas set to width times height (wrong-area)"] += 1
    _drop(table, content, findings, changes)
    _renumber(content["annotations"], changes)
    left = {code: len(_of(table, findings, [code])) for code in NOT_REPAIRED}
    lines = [f"{count} {what}" for what, count in changes.items()]
    return content, lines + [f"not repaired: {count} {code}" for code, count in left.items() if count]


def _of(table: Table, findings: Findings, codes: Sequence[str]) -> list[Place]:
    return [place for code in codes for place in findings.of(code) if place.split == table.name]


def _row(place: Place) -> int:
    assert place.row is not None
    return place.row


def _convert_boxes(table: Table, content: dict[str, list[Any]], findings: Findings, changes: Counter[str]) -> None:
    """The table holds the boxes as they were meant; areas of such files are no better than their boxes were."""
    for code, what in (("xyxy-boxes", "corners to x y width height"), ("fractional-boxes", "fractions to pixels")):
        if not _of(table, findings, [code]):
            continue
        for a in (table.sound & (table.places >= 0)).nonzero()[0].tolist():
            row = content["annotations"][int(table.rows[a])]
            row["bbox"] = table.boxes[a].tolist()
            row["area"] = row["bbox"][2] * row["bbox"][3]
            changes[f"boxes from {what} ({code})"] += 1


def _rescale(table: Table, content: dict[str, list[Any]], places: Sequence[Place], changes: Counter[str]) -> None:
    """Scale boxes and polygons with a picture that was resized; one of another shape is marked to be dropped."""
    scales: dict[int, tuple[float, float]] = {}
    for place in places:
        row = content["images"][_row(place)]
        assert place.size is not None
        down, across = place.size[0] / row["height"], place.size[1] / row["width"]
        if math.isclose(down, across, rel_tol=SAME_SHAPE):
            scales[row["id"]] = down, across
            row["height"], row["width"] = place.size
            changes["pictures scaled with their boxes to the size they have (size-mismatch)"] += 1
    for row in content["annotations"]:
        if not _is_of(row, scales) or not _is_box(row.get("bbox")):
            continue
        down, across = scales[row["image_id"]]
        row["bbox"] = [v * s for v, s in zip(row["bbox"], (across, down, across, down), strict=True)]
        if _is_number(row.get("area")):
            row["area"] *= down * across
        if _is_polygons(row.get("segmentation")):
            pair = (across, down)
            row["segmentation"] = [[v * pair[k % 2] for k, v in enumerate(part)] for part in row["segmentation"]]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_polygons(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, list) and all(map(_is_number, part)) for part in value)


def _is_of(row: Any, image_ids: Collection[int]) -> bool:
    """Whether an annotation, which may be anything, is of one of the pictures."""
    return isinstance(row, dict) and is_int(row.get("image_id")) and row["image_id"] in image_ids


def _clip(table: Table, content: dict[str, list[Any]], places: Sequence[Place], changes: Counter[str]) -> None:
    sizes = {row["id"]: (row["width"], row["height"]) for row in (content["images"][i] for i in table.image_rows)}
    for place in places:
        row = content["annotations"][_row(place)]
        width, height = sizes[row["image_id"]]
        x, y, w, h = row["bbox"]
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        area = row["bbox"][2] * row["bbox"][3]
        row["area"] = min(row["area"], area) if _is_number(row.get("area")) else area
        changes["boxes clipped to their picture (overhanging-box)"] += 1


def _drop(table: Table, content: dict[str, list[Any]], findings: Findings, changes: Counter[str]) -> None:
    """Leave out rows that cannot be used; a picture goes with its annotations."""
    gone: dict[str, set[int]] = {kind: set() for kind in DROPS}
    for kind, codes in DROPS.items():
        for code in codes:
            rows = {_row(place) for place in _of(table, findings, [code])} - gone[kind]
            gone[kind] |= rows
            if rows:
                changes[f"{LISTS[kind]} left out ({code})"] += len(rows)
    for place in _of(table, findings, ["size-mismatch"]):
        row = content["images"][_row(place)]
        if (row["height"], row["width"]) != place.size and _row(place) not in gone["image"]:
            gone["image"].add(_row(place))
            changes["images left out, as they have another shape than their annotations (size-mismatch)"] += 1
    whole = [
        (i, row["id"]) for i, row in enumerate(content["images"]) if isinstance(row, dict) and is_int(row.get("id"))
    ]
    lost = {identity for i, identity in whole if i in gone["image"]}
    for i, identity in whole:
        if identity in lost and i not in gone["image"]:
            gone["image"].add(i)  # its twin: nobody can tell whose the annotations are
            changes["images left out, as another has their id (duplicate-image-id)"] += 1
    for a, row in enumerate(content["annotations"]):
        if a not in gone["annotation"] and _is_of(row, lost):
            gone["annotation"].add(a)
            changes["annotations left out with their picture"] += 1
    for kind, name in LISTS.items():
        content[name] = [row for i, row in enumerate(content[name]) if i not in gone[kind]]


def _renumber(rows: list[Any], changes: Counter[str]) -> None:
    """A new id for each annotation whose id an earlier one has."""
    following = max((row["id"] for row in rows), default=0) + 1
    seen: set[int] = set()
    for row in rows:
        if row["id"] in seen:
            row["id"], following = following, following + 1
            changes["annotations with a new id (duplicate-annotation-id)"] += 1
        seen.add(row["id"])
