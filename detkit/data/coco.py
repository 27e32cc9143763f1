"""COCO annotations as packed arrays.

An index holds no Python object per picture or box, so the memory of forked workers does not grow while they read it.
I pictures, A boxes, K classes; boxes of picture i are rows offsets[i] .. offsets[i + 1].
"""

import gc
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from detkit.data.check import Faults
from detkit.data.parse import Categories, Images, Rows, read_categories, read_images, read_json, read_rows
from detkit.types import Target

OnBad = Literal["stop", "drop"]


@dataclass(frozen=True, eq=False)
class CocoIndex:
    """The pictures and boxes of an annotation file; len() is the number of pictures."""

    annotations: Path
    images: Path  # the folder that file names start from
    classes: tuple[str, ...]
    category_ids: tuple[int | None, ...]  # of each label 0 .. K - 1; None: a class that this file does not have
    image_ids: NDArray[np.int64]  # (I,)
    heights: NDArray[np.int32]  # (I,)
    widths: NDArray[np.int32]  # (I,)
    names: NDArray[np.uint8]  # file names, UTF-8, one after the other
    name_offsets: NDArray[np.int64]  # (I + 1,)
    boxes: NDArray[np.float32]  # (A, 4) x1, y1, x2, y2, clipped to the picture
    labels: NDArray[np.int64]  # (A,)
    crowd: NDArray[np.bool_]  # (A,)
    annotation_ids: NDArray[np.int64]  # (A,)
    areas: NDArray[np.float64]  # (A,) px, of the mask where the file has one
    offsets: NDArray[np.int64]  # (I + 1,)
    dropped: int = 0  # rows of the file left out as unusable; a picture counts once, whatever it shows
    dropped_rows: tuple[str, ...] = ()  # the first of them, with the reason
    clipped: int = 0  # boxes that overhang the picture
    partial: bool = False  # only the first pictures of the file, by data.limit

    def __len__(self) -> int:
        return len(self.image_ids)

    def file_name(self, index: int) -> str:
        """The picture's file name as in the annotations, relative to `images`."""
        return self.names[self.name_offsets[index] : self.name_offsets[index + 1]].tobytes().decode()

    def path(self, index: int) -> Path:
        """The picture's file."""
        return self.images / self.file_name(index)

    def target(self, index: int) -> Target:
        """Boxes and labels of a picture in its own pixels; crowd regions are in `ignore`, where there are any."""
        rows = slice(self.offsets[index], self.offsets[index + 1])
        boxes, crowd = self.boxes[rows], self.crowd[rows]
        target: Target = {
            "boxes": torch.from_numpy(boxes[~crowd]),
            "labels": torch.from_numpy(self.labels[rows][~crowd]),
        }
        if crowd.any():
            target["ignore"] = torch.from_numpy(boxes[crowd])
        return target

    def is_empty(self, index: int) -> bool:
        """Whether a picture has no object; crowd regions are none."""
        return bool(self.crowd[self.offsets[index] : self.offsets[index + 1]].all())

    def fingerprint(self) -> str:
        """SHA-256 of the content, without paths: equal for equal classes, pictures and boxes."""
        digest = hashlib.sha256(repr((self.classes, self.category_ids)).encode())
        for array in (
            *(self.image_ids, self.heights, self.widths, self.names, self.name_offsets),
            *(self.boxes, self.labels, self.crowd, self.areas, self.annotation_ids, self.offsets),
        ):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def as_coco(self) -> dict[str, Any]:
        """The content as a COCO dictionary, with the file's own ids: what was dropped is missing, boxes are clipped."""
        owners = np.repeat(self.image_ids, np.diff(self.offsets)).tolist()
        boxes = self.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        columns = (self.annotation_ids, self.labels, boxes, self.areas, self.crowd.astype(int))
        rows = zip(owners, *(column.tolist() for column in columns), strict=True)
        sizes = zip(self.image_ids.tolist(), self.heights.tolist(), self.widths.tolist(), strict=True)
        return {
            "images": [
                {"id": identity, "file_name": self.file_name(i), "height": height, "width": width}
                for i, (identity, height, width) in enumerate(sizes)
            ],
            "annotations": [
                {
                    "id": identity,
                    "image_id": owner,
                    "category_id": self.category_ids[label],
                    "bbox": box,
                    "area": area,
                    "iscrowd": crowd,
                }
                for owner, identity, label, box, area, crowd in rows
            ],
            "categories": [
                {"id": identity, "name": name}
                for identity, name in zip(self.category_ids, self.classes, strict=True)
                if identity is not None
            ],
        }

    def select(self, keep: NDArray[np.int64]) -> "CocoIndex":
        """An index of some of the pictures, given by their places, in that order."""
        rows = _ranges(self.offsets, keep)
        return replace(
            self,
            image_ids=self.image_ids[keep],
            heights=self.heights[keep],
            widths=self.widths[keep],
            names=self.names[_ranges(self.name_offsets, keep)],
            name_offsets=_offsets(np.diff(self.name_offsets)[keep]),
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            areas=self.areas[rows],
            annotation_ids=self.annotation_ids[rows],
            offsets=_offsets(np.diff(self.offsets)[keep]),
        )


@contextmanager
def _without_collection() -> Iterator[None]:
    """Millions of rows are made and none is garbage before the end: looking for it would take a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_collection()
def load_coco(
    annotations: Path,
    images: Path,
    *,
    classes: Sequence[str] | None = None,
    on_bad: OnBad = "stop",
    limit: int | None = None,
    keep_empty: bool = True,
) -> CocoIndex:
    """Read a COCO annotation file whose pictures are in the folder `images`.

    classes: names in the order of the labels, as in training; without, the file's categories in the order of their ids.
    on_bad: what rows wrong beyond repair do: `stop` raises one ValueError which lists them, `drop` leaves them out.
    limit: the first pictures only. keep_empty: whether pictures without objects stay.
    Raises ValueError, which names the file and the ids, for everything that is wrong with the file.
    """
    content = read_json(annotations)
    if not images.is_dir():
        raise ValueError(f"there is no picture folder {images}")
    faults = Faults(annotations)
    categories = read_categories(annotations, content["categories"], classes)
    pictures = read_images(annotations, content["images"][:limit], images, faults)
    others = [row.get("id") for row in content["images"][len(content["images"][:limit]) :] if isinstance(row, dict)]
    rows = read_rows(annotations, content["annotations"], pictures, others, categories, faults)
    if on_bad == "stop":
        faults.stop("Correct the file, or set data.on_bad=drop to leave these rows out")
    if not len(pictures.ids):
        raise ValueError(f"{annotations} has no usable picture: the data set is empty")
    if classes is None and not len(rows.boxes):
        raise ValueError(f"{annotations} has no usable annotation: there is nothing to learn from")
    index = _pack(annotations, images, categories, pictures, rows, faults)
    index = replace(index, partial=bool(others))
    if not keep_empty:
        index = index.select(np.flatnonzero(np.array([not index.is_empty(i) for i in range(len(index))], bool)))
    if not len(index):
        raise ValueError(f"{annotations} has no picture with an object, and data.keep_empty leaves out the others")
    return index


def _pack(
    annotations: Path, images: Path, categories: Categories, pictures: Images, rows: Rows, faults: Faults
) -> CocoIndex:
    names = [name.encode() for name in pictures.names]
    order = np.argsort(rows.places, kind="stable")
    return CocoIndex(
        annotations=annotations,
        images=images,
        classes=categories.classes,
        category_ids=categories.ids,
        image_ids=pictures.ids,
        heights=pictures.heights,
        widths=pictures.widths,
        names=np.frombuffer(b"".join(names), np.uint8),
        name_offsets=_offsets(np.array([len(name) for name in names], np.int64)),
        boxes=rows.boxes[order],
        labels=rows.labels[order],
        crowd=rows.crowd[order],
        areas=rows.areas[order],
        annotation_ids=rows.ids[order],
        offsets=_offsets(np.bincount(rows.places, minlength=len(names))),
        dropped=faults.count,
        dropped_rows=tuple(faults.lines),
        clipped=rows.clipped,
    )


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))


def _ranges(offsets: NDArray[np.int64], keep: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows offsets[i] .. offsets[i + 1] of each i in `keep`, joined."""
    parts = [np.arange(offsets[i], offsets[i + 1]) for i in keep]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
