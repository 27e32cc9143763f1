"""What one visitor looks at. The model runs once for each picture; after that boxes are only chosen and drawn."""

import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from detkit.data.pictures import read_picture
from detkit.evaluation.coco import detection_rows
from detkit.files import write_json
from detkit.merging import select
from detkit.predict import Detector
from detkit.types import Detect, Detection, Picture
from detkit.visualize import draw_detections, fit_picture, write_picture
from detkit.web.reading import read_upload

THUMBNAIL = 240  # px of the longer side
KEPT_VIEWS = 3  # the browser may still be fetching the one before


class Choice(NamedTuple):
    """Which boxes to show: those of at least this score, of these labels, of all where there are none."""

    score: float
    labels: frozenset[int] = frozenset()

    def of(self, detection: Detection) -> Detection:
        """The part of a detection that is shown."""
        keep = detection["scores"] >= self.score
        if self.labels:
            keep &= torch.isin(detection["labels"], torch.tensor(sorted(self.labels)))
        return select(detection, keep)


@dataclass(frozen=True)
class Found:
    """A picture and all that the model found in it, from its own score threshold on."""

    name: str
    file: Path
    size: tuple[int, int]  # height, width
    detection: Detection
    seconds: float
    thumbnail: Picture


class View(NamedTuple):
    """The files that a visitor sees and downloads."""

    drawn: Path
    predictions: Path
    images: Path


@dataclass(frozen=True)
class Session:
    """Pictures in the order in which they came, and why others were not taken. Its folder is its own."""

    folder: Path
    found: list[Found] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, parent: Path) -> "Session":
        """A new one, with a folder in `parent` whose name nobody guesses."""
        return cls(Path(tempfile.mkdtemp(prefix="session-", dir=parent)))

    def close(self) -> None:
        """Remove all that the session has written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, detect: Detect, data: bytes, name: str) -> None:
        """Run `detect` on the picture in `data`; what the page does not take is noted in `refused`."""
        try:
            picture = read_upload(data, name)
        except ValueError as error:
            self.refused.append(str(error))
            return
        begin = time.perf_counter()
        (detection,) = detect([picture])
        seconds = time.perf_counter() - begin
        file = self.folder / f"picture-{len(self.found) + 1}"
        file.write_bytes(data)
        thumbnail, _ = fit_picture(picture, (THUMBNAIL, THUMBNAIL))
        self.found.append(Found(name, file, picture.shape[:2], detection, seconds, thumbnail))

    def show(self, number: int, choice: Choice, detector: Detector) -> View:
        """Draw a picture with its chosen boxes, and write those of all pictures; the model does not run."""
        found = self.found[number]
        folder = self._fresh_folder()
        view = View(folder / f"{_stem(found.name)}.jpg", folder / "predictions.json", folder / "images.json")
        picture = read_picture(found.file)
        write_picture(view.drawn, draw_detections(picture, choice.of(found.detection), detector.classes))
        rows, images = self.as_coco(choice, detector.category_ids)
        write_json(view.predictions, rows)
        write_json(view.images, images)
        return view

    def as_coco(
        self, choice: Choice, category_ids: Sequence[int | None]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The chosen boxes in COCO's result format, and the pictures by id, as `detkit demo` writes them."""
        ids = list(range(1, len(self.found) + 1))
        images = [
            {"id": number, "file_name": found.name, "height": found.size[0], "width": found.size[1]}
            for number, found in zip(ids, self.found, strict=True)
        ]
        return detection_rows([choice.of(found.detection) for found in self.found], ids, category_ids), images

    def _fresh_folder(self) -> Path:
        views = sorted(self.folder.glob("view-*"))
        for old in views[: -(KEPT_VIEWS - 1)]:
            shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"view-{time.time_ns():020}-", dir=self.folder))


def _stem(name: str) -> str:
    """A file name of harmless characters, without its ending."""
    return re.sub(r"[^\w-]+", "_", Path(name).stem)[:80] or "picture"
