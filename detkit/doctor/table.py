"""The rows of a split as arrays, with what is malformed noted and left out of them.

I images, A annotations: the good rows only. `rows` arrays give the place of each in the lists of the file.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detkit.data.parse_boxes import read_boxes
from detkit.data.parse_values import is_file, is_int, is_text, lookup, repeats, whole_numbers
from detkit.doctor.findings import Findings, Place
from detkit.formats import Split

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Boxes = NDArray[np.float64]
MAX_SIDE = 2**31
FARTHEST = 1e12  # px; sums and products of larger numbers leave the range of floats


@dataclass(frozen=True, eq=False)
class Table:
    """The good rows of a split."""

    split: Split
    image_rows: Ints  # (I,)
    image_ids: Ints  # (I,)
    heights: Ints  # (I,) px
    widths: Ints  # (I,) px
    names: tuple[str, ...]  # (I,)
    rows: Ints  # (A,)
    ids: Ints  # (A,)
    places: Ints  # (A,) the place of the picture in the arrays of images, -1: unknown
    category_ids: Ints  # (A,)
    crowd: Bools  # (A,)
    boxes: Boxes  # (A, 4) x, y, width, height px; 0, 0, 1, 1 where sound is false
    sound: Bools  # (A,) whether the box is four finite numbers
    categories: dict[int, str]  # of the file, by id

    @property
    def name(self) -> str:
        """The split's name."""
        return self.split.source.name

    @property
    def file(self) -> Path:
        """The annotation file, or the folder or data.yaml that stands for many."""
        return self.split.source.annotations

    @cached_property
    def usable(self) -> Bools:
        """(A,) boxes of known pictures and categories, which are numbers, have an area, and lie in their picture."""
        x1, y1, x2, y2 = self.clipped.T
        known = np.isin(self.category_ids, np.array(list(self.categories), np.int64))
        return self.sound & (self.places >= 0) & known & (x2 > x1) & (y2 > y1)

    @cached_property
    def limits(self) -> Boxes:
        """(A, 2) width and height of each box's picture; infinite where it is unknown."""
        if not len(self.names):
            return np.full((len(self.rows), 2), np.inf)
        sides = np.stack((self.widths, self.heights), axis=1)[self.places].astype(np.float64)
        return np.where((self.places >= 0)[:, None], sides, np.inf)

    @cached_property
    def clipped(self) -> Boxes:
        """(A, 4) corners x1 y1 x2 y2, cut at the edges of the pictures."""
        low, high = self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]
        return np.concatenate([np.clip(corner, 0, self.limits) for corner in (low, high)], axis=1)

    def picture(self, i: int) -> Path:
        """The file of image i."""
        return self.split.source.images / self.names[i]

    def image(self, i: int, detail: str = "", size: tuple[int, int] | None = None) -> Place:
        """Image i as the place of a finding."""
        row = int(self.image_rows[i])
        return Place(
            self.split.origin("images", row).file, detail, "image", row, int(self.image_ids[i]), self.names[i],
            picture=self.picture(i), size=size, split=self.name,
        )  # fmt: skip

    def annotation(self, a: int, detail: str = "") -> Place:
        """Annotation a as the place of a finding."""
        i = int(self.places[a])
        x, y, w, h = self.boxes[a].tolist()
        file, line = self.split.origin("annotations", int(self.rows[a]))
        return Place(
            file, detail, "annotation", int(self.rows[a]),
            int(self.image_ids[i]) if i >= 0 else None, self.names[i] if i >= 0 else "", int(self.ids[a]),
            (x, y, w, h) if self.sound[a] else None, self.picture(i) if i >= 0 else None, split=self.name, line=line,
        )  # fmt: skip


def read_table(split: Split, findings: Findings) -> Table:
    """Sort the rows of a split into arrays; malformed rows, ids that repeat and unknown references are noted."""
    file, name = split.source.annotations, split.source.name
    findings.add(
        "unreadable-annotations",
        *(Place(where.file, reason, split=name, line=where.line) for where, reason in split.faults),
    )
    categories = _categories(split, findings)
    image_rows, sizes, names = _images(split, findings)
    all_ids = [row.get("id") for row in split.content["images"] if isinstance(row, dict)]
    image_ids = np.array([split.content["images"][i]["id"] for i in image_rows], np.int64)
    raw = [row if isinstance(row, dict) else {} for row in split.content["annotations"]]
    ids, good = whole_numbers([row.get("id") for row in raw])
    crowd, flags = whole_numbers([row.get("iscrowd", 0) for row in raw])
    good &= flags & ((crowd == 0) | (crowd == 1))
    for a in np.flatnonzero(~good).tolist():
        got = {key: raw[a][key] for key in ("id", "iscrowd") if key in raw[a]} or split.content["annotations"][a]
        detail = f"needs a whole id and iscrowd 0 or 1, got {got!r:.80}"
        findings.add("malformed-annotation", Place(file, detail, "annotation", a, split=name))
    rows = np.flatnonzero(good)
    kept = [raw[a] for a in rows]
    places, known = _owners(kept, image_ids)
    category_ids, whole = whole_numbers([row.get("category_id") for row in kept])
    problems: dict[int, str] = {}
    boxes = np.clip(read_boxes([row.get("bbox") for row in kept], problems), -FARTHEST, FARTHEST)
    sound = np.ones(len(rows), bool)
    sound[list(problems)] = False
    table = Table(
        split, np.array(image_rows, np.int64), image_ids, sizes[:, 0], sizes[:, 1], names,
        rows, ids[rows], np.where(known, places, -1), np.where(whole, category_ids, -1), crowd[rows] == 1,
        boxes, sound, categories,
    )  # fmt: skip
    _note_references(table, kept, {i for i in all_ids if is_int(i)}, findings)
    unsized = (i for i, row in enumerate(image_rows) if row in split.unsized)
    findings.add("unstated-size", *(table.image(i, f"{table.widths[i]} x {table.heights[i]}") for i in unsized))
    for a, reason in problems.items():
        code = "nonfinite-box" if reason.endswith("is not finite") else "malformed-box"
        findings.add(code, table.annotation(a, reason))
    return table


def _owners(rows: list[dict[str, Any]], image_ids: Ints) -> tuple[Ints, Bools]:
    """The place of each annotation's picture, and whether there is one; of pictures with one id the first."""
    wanted, whole = whole_numbers([row.get("image_id") for row in rows])
    keys, first = np.unique(image_ids, return_index=True)
    places, known = lookup(wanted, keys, first.astype(np.int64))
    return places, known & whole


def _note_references(table: Table, rows: list[dict[str, Any]], listed: set[int], findings: Findings) -> None:
    """Ids that repeat, and references that lead nowhere; those to a malformed image are noted there."""
    for a in np.flatnonzero(repeats(table.ids, np.ones(len(rows), bool))).tolist():
        findings.add("duplicate-annotation-id", table.annotation(a))
    for a in np.flatnonzero(table.places < 0).tolist():
        wanted = rows[a].get("image_id")
        if not (is_int(wanted) and wanted in listed):
            findings.add("unknown-image", table.annotation(a, f"image_id {wanted!r}"))
    yolo = table.split.source.kind == "yolo"  # its classes count from 0
    for a, row in enumerate(rows):
        wanted = row.get("category_id")
        if not is_int(wanted) or wanted not in table.categories:
            detail = f"class {row['category_id'] - 1}" if yolo else f"category_id {wanted!r}"
            findings.add("unknown-category", table.annotation(a, detail))


def _categories(split: Split, findings: Findings) -> dict[int, str]:
    found: dict[int, str] = {}
    for place, row in enumerate(split.content["categories"]):
        identity, name = (row.get("id"), row.get("name")) if isinstance(row, dict) else (None, None)
        fault = ""
        if not is_int(identity) or not is_text(name) or not name:
            fault = f"needs a whole id and a name, got {row!r:.80}"
        elif identity in found:
            fault = f"the id {identity} occurs twice: {found[identity]!r} and {name!r}"
        elif name in found.values():
            fault = f"the name {name!r} occurs twice"
        else:
            found[identity] = name
        if fault:
            where = Place(split.source.annotations, fault, "category", place, split=split.source.name)
            findings.add("malformed-category", where)
    return found


def _images(split: Split, findings: Findings) -> tuple[list[int], NDArray[np.int64], tuple[str, ...]]:
    """The places of the good rows, their heights and widths (I, 2), and their file names."""
    places: list[int] = []
    seen: set[int] = set()
    for i, row in enumerate(split.content["images"]):
        fault = _image_fault(row)
        file, name = split.origin("images", i).file, split.source.name
        if fault and split.source.kind != "coco":
            findings.add(*_picture_fault(split, i))
            continue
        if fault:
            findings.add("malformed-image", Place(file, fault, "image", i, split=name))
            continue
        places.append(i)
        if row["id"] in seen:
            twice = Place(file, "", "image", i, row["id"], row["file_name"], split=name)
            findings.add("duplicate-image-id", twice)
        seen.add(row["id"])
    rows = [split.content["images"][i] for i in places]
    sizes = np.array([(row["height"], row["width"]) for row in rows], np.int64).reshape(-1, 2)
    return places, sizes, tuple(row["file_name"] for row in rows)


def _picture_fault(split: Split, i: int) -> tuple[str, Place]:
    """Of a row without a size in a format that may leave it out: its picture has none to read."""
    row = split.content["images"][i]
    picture = split.source.images / row["file_name"]
    there = is_file(picture)
    detail = "its size cannot be read" if there else f"not in {split.source.images}"
    where = split.origin("images", i).file
    place = Place(where, detail, "image", i, row["id"], row["file_name"], picture=picture, split=split.source.name)
    return "unreadable-picture" if there else "missing-picture", place


def _image_fault(row: Any) -> str:
    if not isinstance(row, dict):
        return f"expected an object, got {row!r:.80}"
    name = row.get("file_name")
    sides = [row.get(key) for key in ("height", "width")]
    if not is_int(row.get("id")):
        return f"needs a whole id, got {row!r:.80}"
    if not is_text(name) or not name:
        return f"image {row['id']} needs a file_name, got {name!r:.80}"
    if not all(is_int(side) and 0 < side < MAX_SIDE for side in sides):
        return f"image {row['id']} ({name}) needs whole height and width above 0, got {sides}"
    return ""
