"""Pictures of what went wrong, ground truth beside predictions: both drawn at the operating point."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detkit.boxes import pairwise_iou, scale_boxes
from detkit.data.pictures import read_picture
from detkit.evaluation.diagnosis import IOU
from detkit.pages import jpeg_uri
from detkit.report.inspection import Inspection
from detkit.report.objects import FATES, MEANINGS
from detkit.types import Detection, Picture, Target
from detkit.visualize import AnyBoxes, draw_detections, fit_picture

WORST_PICTURES, FALSE_POSITIVES = 8, 12
MISSED, MISSED_CLASSES = 6, 12  # objects of a class; classes
WHOLE, CLOSE_UP = 480, 280  # px of the longer side of a picture in the page
CONTEXT, SMALLEST = 4.0, 96  # a close-up is so many times as large as its box, and has at least so many px

Window = tuple[int, int, int, int]  # x1 y1 x2 y2 in px of the picture


@dataclass(frozen=True)
class Exhibit:
    """Ground truth beside predictions: addresses of both pictures, and what there is to see."""

    truth: str
    found: str
    caption: str


class Galleries:
    """The galleries of an inspection."""

    def __init__(self, inspection: Inspection) -> None:
        self.seen, self.index = inspection, inspection.scored.index
        self.classes = self.index.classes
        places = {int(image_id): i for i, image_id in enumerate(self.index.image_ids)}
        labels = {category_id: label for label, category_id in enumerate(self.index.category_ids)}
        found = inspection.found
        self.places = np.array([places[i] for i in found.image_ids.tolist()], np.int64)  # (D,) of the pictures
        self.labels = np.array([labels[c] for c in found.category_ids.tolist()], np.int64)  # (D,)
        self.boxes = torch.from_numpy(np.hstack((found.boxes[:, :2], found.boxes[:, :2] + found.boxes[:, 2:]))).float()

    def worst_pictures(self) -> list[Exhibit]:
        """Those with the most mistakes at the operating point."""
        pictures = len(self.index)
        wrong = np.bincount(self.places[self.seen.diagnosis.false_positives], minlength=pictures)
        lost = self.seen.objects.fates != FATES.index("found")
        missed = np.bincount(self.seen.objects.pictures[lost], minlength=pictures)
        order = np.argsort(-(wrong + missed), kind="stable")[:WORST_PICTURES].tolist()
        return [
            self._exhibit(i, None, f"{self.index.file_name(i)}: {missed[i]} missed, {wrong[i]} wrong")
            for i in order
            if wrong[i] + missed[i]
        ]

    def false_positives(self) -> list[Exhibit]:
        """Those with the highest scores."""
        wrong = np.flatnonzero(self.seen.diagnosis.false_positives)
        scores = self.seen.found.scores
        best = wrong[np.argsort(-scores[wrong], kind="stable")][:FALSE_POSITIVES].tolist()
        return [
            self._exhibit(
                int(self.places[d]),
                self.boxes[d].numpy(),
                f"{self.classes[self.labels[d]]} {scores[d]:.2f}, {self._what_is_there(d)}; "
                f"{self.index.file_name(int(self.places[d]))}",
            )
            for d in best
        ]

    def missed(self) -> Iterator[tuple[str, int, list[Exhibit]]]:
        """Name, number of missed objects and the largest of them, of the classes that miss the most."""
        objects = self.seen.objects
        lost = objects.fates != FATES.index("found")
        counts = np.bincount(objects.labels[lost], minlength=len(self.classes))
        for label in np.argsort(-counts, kind="stable")[:MISSED_CLASSES].tolist():
            own = np.flatnonzero(lost & (objects.labels == label))
            largest = own[np.argsort(-objects.areas[own], kind="stable")][:MISSED].tolist()
            if largest:
                yield self.classes[label], int(counts[label]), [self._missed(o) for o in largest]

    def _missed(self, o: int) -> Exhibit:
        objects = self.seen.objects
        place, fate = int(objects.pictures[o]), FATES[objects.fates[o]]
        stride = self.seen.detector.model.roi_head.pooler.strides[objects.levels[o]]
        width, height = (objects.boxes[o, 2:] - objects.boxes[o, :2]).round().astype(int)
        told = MEANINGS[fate]
        if fate == "low score":
            told += f" ({self.seen.found.scores[self.seen.diagnosis.match[objects.rows[o]]]:.2f})"
        caption = f"{width} x {height} px, level of stride {stride}: {told}; {self.index.file_name(place)}"
        return self._exhibit(place, objects.boxes[o], caption)

    def _what_is_there(self, d: int) -> str:
        """What a wrong detection lies on."""
        target = self.index.target(int(self.places[d]))
        iou = pairwise_iou(self.boxes[d : d + 1], target["boxes"])[0]
        best = float(iou.max()) if len(iou) else 0.0
        if best < 0.1:
            return "no object there"
        label = int(target["labels"][iou.argmax()])
        if label != self.labels[d]:
            return f"on {self.classes[label]} (IoU {best:.2f})"
        return f"a second box (IoU {best:.2f})" if best >= IOU else f"not tight enough (IoU {best:.2f})"

    def _exhibit(self, place: int, box: NDArray[np.float32] | None, caption: str) -> Exhibit:
        """The whole picture, or the surroundings of a box."""
        size = int(self.index.heights[place]), int(self.index.widths[place])
        window = (0, 0, size[1], size[0]) if box is None else close_up(box, size)
        picture = read_picture(self.index.path(place), size)
        target, kept = self.index.target(place), self._kept(place)
        side = WHOLE if box is None else CLOSE_UP
        truth, found = (self._draw(picture, boxes, window, side) for boxes in (target, kept))
        return Exhibit(jpeg_uri(truth), jpeg_uri(found), caption)

    def _kept(self, place: int) -> Detection:
        chosen = np.flatnonzero((self.places == place) & self.seen.diagnosis.kept)
        scores = torch.from_numpy(self.seen.found.scores[chosen])
        return {"boxes": self.boxes[chosen], "labels": torch.from_numpy(self.labels[chosen]), "scores": scores}

    def _draw(self, picture: Picture, boxes: Target | Detection, window: Window, side: int) -> Picture:
        x1, y1, x2, y2 = window
        fitted, scales = fit_picture(np.ascontiguousarray(picture[y1:y2, x1:x2]), (side, side))
        return draw_detections(fitted, _moved(boxes, window, scales), self.classes)


def close_up(box: NDArray[np.float32], size: tuple[int, int]) -> Window:
    """A square window around a box (4,), moved into a picture of `size` (height, width), cut if larger."""
    x1, y1, x2, y2 = (float(value) for value in box)
    side = round(max(CONTEXT * max(x2 - x1, y2 - y1), SMALLEST))
    window = []
    for center, limit in (((x1 + x2) / 2, size[1]), ((y1 + y2) / 2, size[0])):
        low = max(min(round(center - side / 2), limit - side), 0)
        window.append((low, min(low + side, limit)))
    (left, right), (top, bottom) = window
    return left, top, right, bottom


def _moved(boxes: Target | Detection, window: Window, scales: tuple[float, float]) -> AnyBoxes:
    """What lies in a window, in the pixels of the fitted window."""
    corner, frame = torch.tensor(window[:2] * 2), torch.tensor([window], dtype=torch.float32)
    values = cast(dict[str, Tensor], boxes)
    inside = {key: pairwise_iou(values[key], frame)[:, 0] > 0 for key in ("boxes", "ignore") if key in values}
    moved = {key: scale_boxes(values[key][keep] - corner, *scales) for key, keep in inside.items()}
    rest = {key: value[inside["boxes"]] for key, value in values.items() if key not in inside}
    return cast(AnyBoxes, {**rest, **moved})
