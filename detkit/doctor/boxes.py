"""Boxes: corners for sizes, empty ones, those that leave their picture or cover it, duplicates, areas.

hotcoco's `healthcheck` finds part of this (and tests hold ours to it), but refuses a file for one NaN, names rows by
ids that may repeat, gives duplicates without saying of what, and leaves them out where pictures are crowded.

A annotations.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from detkit.boxes import pairwise_iou
from detkit.data.parse_boxes import OtherFormat, like_corners, refuse_other_formats
from detkit.doctor.findings import Findings, Place
from detkit.doctor.table import Table

SAME = 0.95  # IoU from which two boxes are one
THIN = 2.0  # px
OVERHANG = 1.0  # px: less is rounding
FULL = 0.99  # share of the picture
AREA_SLACK = 1.05


def check_boxes(table: Table, findings: Findings) -> Table:
    """Note what is wrong with single boxes. Returns the table with its boxes in COCO's format, if they were in none."""
    stated, table = table, _in_pixels(table, findings)
    known = table.sound & (table.places >= 0)
    x, y, w, h = table.boxes.T
    width, height = table.limits.T
    x1, y1, x2, y2 = table.clipped.T
    empty = known & ((w <= 0) | (h <= 0))
    outside = known & ~empty & ((x2 <= x1) | (y2 <= y1))
    inside = known & ~empty & ~outside
    beyond = np.max((-x, -y, x + w - width, y + h - height), axis=0) if len(x) else np.zeros(0)
    far, fits = like_corners(table.boxes, height, width)
    swapped = inside & far & fits
    with np.errstate(invalid="ignore"):  # pictures that nobody knows have no size
        full = inside & ((x2 - x1) * (y2 - y1) >= FULL * width * height) & ~table.crowd
    for code, wrong in (
        ("empty-box", empty),
        ("outside-box", outside),
        ("maybe-xyxy", swapped),
        ("overhanging-box", inside & ~swapped & (beyond > OVERHANG)),
        ("full-picture-box", full),
        ("tiny-box", inside & (np.minimum(x2 - x1, y2 - y1) < THIN)),
    ):
        findings.add(code, *(table.annotation(a, _shown(table, a)) for a in np.flatnonzero(wrong).tolist()))
    findings.add("crowd-regions", *(table.annotation(a) for a in np.flatnonzero(table.crowd).tolist()))
    if table is stated:  # areas of a file in another format are no better than its boxes
        _check_areas(table, findings)
    _find_duplicates(table, findings)
    return table


def _shown(table: Table, a: int) -> str:
    width, height = table.limits[a]
    return f"bbox {[round(float(v), 2) for v in table.boxes[a]]} in {width:.0f} x {height:.0f}"


def _in_pixels(table: Table, findings: Findings) -> Table:
    """Where the boxes of the whole file are corners or fractions, one finding, and the boxes as they were meant."""
    fits = table.sound & (table.places >= 0)
    places = table.places[fits]
    heights, widths = table.heights[places].astype(np.int32), table.widths[places].astype(np.int32)
    try:
        refuse_other_formats(table.file, table.boxes[fits], heights, widths, table.ids[fits], {})
    except OtherFormat as error:
        findings.add(f"{error.form}-boxes", Place(table.file, error.reason, split=table.name))
        return replace(table, boxes=_meant(table.boxes, table.limits, error.form == "fractional"))
    return table


def _meant(boxes: NDArray[np.float64], limits: NDArray[np.float64], fractions: bool) -> NDArray[np.float64]:
    if fractions:
        return boxes * np.tile(np.where(np.isfinite(limits), limits, 1), 2)
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)


def _check_areas(table: Table, findings: Findings) -> None:
    rows = table.split.content["annotations"]
    for a in np.flatnonzero(table.usable & ~table.crowd).tolist():
        area = rows[table.rows[a]].get("area")
        box = float(table.boxes[a, 2] * table.boxes[a, 3])
        if area is not None and (type(area) not in (int, float) or not 0 < area <= AREA_SLACK * box + 1):
            findings.add("wrong-area", table.annotation(a, f"area {area!r:.20}, its box has {box:.1f}"))


def _find_duplicates(table: Table, findings: Findings) -> None:
    """Within each picture; of a pair the later box is the duplicate. Crowd regions may overlap what they like."""
    rows = np.flatnonzero(table.usable & ~table.crowd)
    rows = rows[np.argsort(table.places[rows], kind="stable")]
    for group in np.split(rows, np.flatnonzero(np.diff(table.places[rows])) + 1):
        if len(group) < 2:
            continue
        corners = torch.from_numpy(table.clipped[group])
        same = torch.triu(pairwise_iou(corners, corners) > SAME, diagonal=1)
        for first, second in same.nonzero().tolist():
            a, b = int(group[first]), int(group[second])
            alike = table.category_ids[a] == table.category_ids[b]
            detail = f"like annotation {table.ids[a]}, {table.categories[int(table.category_ids[a])]}"
            findings.add("duplicate-box" if alike else "conflicting-box", table.annotation(b, detail))
