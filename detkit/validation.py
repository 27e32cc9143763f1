"""Scoring a detector on the validation split: the numbers, each class, and a sheet of pictures to look at."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from detkit.data.coco import CocoIndex
from detkit.data.loader import EpochLoader
from detkit.data.pictures import read_picture
from detkit.engine.distributed import ALONE, World
from detkit.evaluation.coco import Backend, Evaluation, check_ground_truth, detection_rows, evaluate_detections
from detkit.evaluation.losses import LossMeans, joined_means
from detkit.evaluation.run import (
    Predict,
    PredictBatch,
    predict_all,
    predict_batches,
    predictor,
    predictor_with_losses,
    to_original,
)
from detkit.types import Detect, Detection, Meta, Target
from detkit.visualize import contact_sheet, write_picture

SHEET_PICTURES = 8


@dataclass(frozen=True)
class Scored:
    """What a predictor found on a split, in pixels of the original pictures, and how good it is."""

    evaluation: Evaluation
    rows: list[dict[str, Any]]  # COCO result format
    detections: dict[int, Detection]  # by the number of the picture in the index
    index: CocoIndex

    @property
    def boxes(self) -> int:
        """How many objects there were to find, crowd regions not counted."""
        return sum(score.boxes for score in self.evaluation.classes.values())


def score(
    predict: Predict,
    loader: EpochLoader,
    backend: Backend = "hotcoco",
    progress: Callable[[int], None] | None = None,
) -> Scored:
    """Run a predictor over all pictures of a loader and score it by COCO's metrics."""
    return score_batches(lambda batch: predict(batch.images), loader, backend, progress)


def score_batches(
    predict: PredictBatch,
    loader: EpochLoader,
    backend: Backend = "hotcoco",
    progress: Callable[[int], None] | None = None,
) -> Scored:
    """As `score`, for what also looks at the targets."""
    detections, metas = predict_batches(predict, loader.epoch(0), progress)
    found = dict(zip((meta["image_id"] for meta in metas), detections, strict=True))
    return _scored(found, loader.dataset.index, backend)


def score_pictures(
    detect: Detect, index: CocoIndex, backend: Backend = "hotcoco", progress: Callable[[int], None] | None = None
) -> Scored:
    """As `score`, for what looks at the pictures as they are: at tiles, or at several sizes."""
    found: dict[int, Detection] = {}
    for i in range(len(index)):
        (found[int(index.image_ids[i])],) = detect([_picture(index, i)])
        if progress is not None:
            progress(1)
    return _scored(found, index, backend)


def _scored(found: dict[int, Detection], index: CocoIndex, backend: Backend = "hotcoco") -> Scored:
    """Scores of what was found in each picture, by its id."""
    found = dict(sorted(found.items()))
    rows = detection_rows(list(found.values()), list(found), index.category_ids)
    evaluation = evaluate_detections(ground_truth(index), rows, backend, index.image_ids.tolist())
    place = {int(image_id): number for number, image_id in enumerate(index.image_ids)}
    return Scored(evaluation, rows, {place[image_id]: detection for image_id, detection in found.items()}, index)


def ground_truth(index: CocoIndex) -> Path | dict[str, Any]:
    """The annotation file itself, so that the numbers are the official ones; the rows in use where some are not."""
    return index.as_coco() if index.dropped or index.partial else index.annotations


class Validation:
    """`evaluate(module, step)` of the training loop: metrics, and a contact sheet in `folder`.

    With `losses` the metrics have the losses on the split too: `val_loss`, `val_loss_class`, ... Each rank of `world`
    looks at its share of the pictures; rank 0 scores and draws them all, and tells the others.
    """

    def __init__(
        self,
        loader: EpochLoader,
        device: torch.device,
        precision: str,
        folder: Path,
        world: World = ALONE,
        losses: bool = True,
    ) -> None:
        self.loader, self.device, self.precision, self.folder = loader, device, precision, folder
        self.world, self.losses = world, losses

    def __call__(self, module: nn.Module, step: int) -> dict[str, float]:
        means = LossMeans()
        with self.world.together():
            detections, metas = self._predict(module, means)
        found = dict(zip((meta["image_id"] for meta in metas), detections, strict=True))
        parts = self.world.gather((found, means.sums, means.pictures))
        metrics: dict[str, float] = {}
        with self.world.together():
            if parts is not None:
                metrics = self._score({key: value for part, _, _ in parts for key, value in part.items()}, step)
                metrics |= joined_means([(sums, pictures) for _, sums, pictures in parts]).metrics()
        return self.world.broadcast(metrics)

    def _predict(self, module: nn.Module, means: LossMeans) -> tuple[list[Detection], list[Meta]]:
        batches = self.loader.epoch(0)
        if not self.losses:
            return predict_all(predictor(module, self.device, self.precision), batches)
        return predict_batches(predictor_with_losses(module, self.device, self.precision, means), batches)

    def _score(self, found: dict[int, Detection], step: int) -> dict[str, float]:
        scored = _scored(found, self.loader.dataset.index)
        write_picture(self.folder / f"sheet_{step:07d}.jpg", sheet(scored.index, scored.detections))
        return scored.evaluation.metrics


def check_loader(loader: EpochLoader, world: World = ALONE) -> float | None:
    """AP of the ground truth itself, read, resized and scaled back as predictions are: 1.0 unless something broke.

    None where there is nothing to score, and on all ranks of `world` but the first, to which the others send their
    shares. Raises ValueError that says what is wrong.
    """
    index = loader.dataset.index
    if all(index.is_empty(i) for i in range(len(index))):
        return None
    with world.together():
        own = _truth_as_rows(loader)
    parts = world.gather(own)
    with world.together():
        if parts is not None:
            rows = [row for part in parts for row in part]
            return check_ground_truth(ground_truth(index), rows, image_ids=index.image_ids.tolist())
    return None


def _truth_as_rows(loader: EpochLoader) -> list[dict[str, Any]]:
    detections: list[Detection] = []
    metas: list[Meta] = []
    for batch in loader.epoch(0):
        for image, target, meta in zip(batch.images, batch.targets, batch.metas, strict=True):
            detections.append(to_original(_as_detection(target), (image.shape[-2], image.shape[-1]), meta))
        metas.extend(batch.metas)
    return detection_rows(detections, [meta["image_id"] for meta in metas], loader.dataset.index.category_ids)


def sheet(index: CocoIndex, detections: dict[int, Detection], score_threshold: float = 0.3) -> Any:
    """Ground truth beside detections for some pictures, spread evenly over those that show objects."""
    shown = [i for i in sorted(detections) if not index.is_empty(i)] or sorted(detections)
    chosen = (
        [shown[k * len(shown) // SHEET_PICTURES] for k in range(SHEET_PICTURES)]
        if len(shown) > SHEET_PICTURES
        else shown
    )
    rows = [(_picture(index, i), index.target(i), detections[i]) for i in chosen]
    return contact_sheet(rows, index.classes, score_threshold, [index.file_name(i) for i in chosen])


def show_progress(what: str, console: Console | None = None) -> Progress:
    """A bar over pictures with the time that is left; add a task with their number to it."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True, console=console)


def _picture(index: CocoIndex, i: int) -> Any:
    return read_picture(index.path(i), (int(index.heights[i]), int(index.widths[i])))


def _as_detection(target: Target) -> Detection:
    scores = torch.ones(len(target["boxes"]))
    return {"boxes": target["boxes"], "labels": target["labels"], "scores": scores}
