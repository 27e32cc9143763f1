"""COCO's detection metrics (Lin et al., 2014; definitions: cocodataset.org, detection evaluation).

T: IoU thresholds 0.50, 0.55, ..., 0.95.  R: recall points 0, 0.01, ..., 1.  K: categories by id.
A: area ranges all, small (< 32^2), medium, large (> 96^2) pixels.
M: at most 1, 10, 100 detections of each class in each picture.

Both backends fill the same two tables, precision (T, R, K, A, M) and recall (T, K, A, M), -1 where a category
has no ground truth; all numbers here are means over what is not -1, and -1 themselves where nothing is left.
"""

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hotcoco
import numpy as np
from numpy.typing import NDArray

from detkit.evaluation.columns import DetectionColumns, GroundTruth, Json, read_detections, read_ground_truth
from detkit.files import write_atomically
from detkit.types import Detection

Backend = Literal["hotcoco", "pycocotools"]
Table = NDArray[np.float64]

COCO_METRICS: tuple[str, ...] = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip

MAX_DETECTIONS = 100  # of a class in a picture; COCO scores no more


@dataclass(frozen=True)
class ClassScore:
    """What one class scored; -1 where it has no ground truth."""

    AP: float
    AP50: float
    AR100: float
    boxes: int  # ground truth, crowd regions not counted


@dataclass(frozen=True)
class Evaluation:
    """The 12 numbers by COCO's names, and each class by its name, in the order of the category ids."""

    metrics: dict[str, float]
    classes: dict[str, ClassScore]


def evaluate_coco(
    ground_truth: Path | Json,
    detection_rows: Sequence[Json] | Path,
    backend: Backend = "hotcoco",
    image_ids: Sequence[int] | None = None,
) -> dict[str, float]:
    """The 12 numbers of `COCO_METRICS`; see `evaluate_detections`."""
    return evaluate_detections(ground_truth, detection_rows, backend, image_ids).metrics


def per_class_ap(
    ground_truth: Path | Json,
    detection_rows: Sequence[Json] | Path,
    backend: Backend = "hotcoco",
    image_ids: Sequence[int] | None = None,
) -> dict[str, ClassScore]:
    """Each class's score; see `evaluate_detections`, which gives these and the 12 numbers at once."""
    return evaluate_detections(ground_truth, detection_rows, backend, image_ids).classes


def evaluate_detections(
    ground_truth: Path | Json,
    detection_rows: Sequence[Json] | Path,
    backend: Backend = "hotcoco",
    image_ids: Sequence[int] | None = None,
) -> Evaluation:
    """Score detections in COCO's result format against COCO annotations; both as content or as a file.

    `image_ids` restricts both to some pictures. A number is -1 where there is nothing to find (as in COCO)
    and 0 where something is and nothing was found. Neither input is changed, nothing is printed.
    Raises ValueError, naming them, for rows of unknown images or categories and for what is no box.
    """
    truth = read_ground_truth(ground_truth)
    all_images = [image["id"] for image in truth.images]
    truth = truth if image_ids is None else truth.only_images(image_ids)
    return _evaluate(truth, read_detections(detection_rows, truth, all_images), backend)


def detection_rows(
    detections: Sequence[Detection], image_ids: Sequence[int], category_ids: Sequence[int | None]
) -> list[Json]:
    """COCO's result rows of detections in pixels of the original pictures; label k becomes `category_ids[k]`.

    A class whose category id is None (unknown to the ground truth) is left out. Numbers are not rounded.
    """
    rows: list[Json] = []
    for detection, image_id in zip(detections, image_ids, strict=True):
        boxes = detection["boxes"].detach().double().cpu()
        corners, sizes = boxes[:, :2].tolist(), (boxes[:, 2:] - boxes[:, :2]).tolist()
        columns = zip(corners, sizes, detection["labels"].tolist(), detection["scores"].tolist(), strict=True)
        for corner, size, label, score in columns:
            if (category_id := category_ids[label]) is not None:
                rows.append(_row(image_id, category_id, corner + size, score))
    return rows


def write_predictions(path: Path, rows: Sequence[Json]) -> None:
    """Write rows in COCO's result format as JSON, one row a line; ValueError when that is not possible."""
    text = "[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in rows) + "\n]\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise ValueError(f"cannot write the predictions to {path}: {error.strerror or error}") from error


def perfect_rows(ground_truth: Path | Json, image_ids: Sequence[int] | None = None) -> list[Json]:
    """The ground truth as detections of score 1, crowd regions left out: they score AP 1."""
    truth = read_ground_truth(ground_truth)
    return _perfect_rows(truth if image_ids is None else truth.only_images(image_ids))


def check_ground_truth(
    ground_truth: Path | Json,
    rows: Sequence[Json] | None = None,
    backend: Backend = "hotcoco",
    image_ids: Sequence[int] | None = None,
) -> float:
    """AP of the ground truth given as detections, which is 1; ValueError saying what is wrong when it is not.

    `rows` are those detections when they went the way of real ones (dataset, resizing, `detection_rows`),
    in the order of the annotations, which is then checked too; otherwise they are read from the annotations
    themselves. What cannot match is left out: boxes without area and those beyond the 100 of a class in a
    picture that COCO scores; for `rows` also what lies outside the pictures.
    """
    given = read_ground_truth(ground_truth)
    all_images = [image["id"] for image in given.images]
    given = given if image_ids is None else given.only_images(image_ids)
    truth = _scorable(given if rows is None else given.clipped())
    if truth.crowd.all():
        raise ValueError(f"no boxes in the {len(truth.images)} pictures of the ground truth: nothing can be scored")
    found = read_detections(_perfect_rows(truth) if rows is None else rows, given, all_images)
    evaluation = _evaluate(truth, found, backend)
    if evaluation.metrics["AP"] < 1 - 1e-6:
        raise ValueError(_what_is_wrong(evaluation, truth, found))
    return evaluation.metrics["AP"]


def _row(image_id: int, category_id: int, box: list[float], score: float) -> Json:
    return {"image_id": int(image_id), "category_id": int(category_id), "bbox": box, "score": score}


def _perfect_rows(truth: GroundTruth) -> list[Json]:
    truth = truth.select(~truth.crowd)
    columns = (truth.image_ids.tolist(), truth.category_ids.tolist(), truth.boxes.tolist())
    return [_row(image_id, category_id, box, 1.0) for image_id, category_id, box in zip(*columns, strict=True)]


def _scorable(truth: GroundTruth) -> GroundTruth:
    """Crowd regions, and the first 100 boxes with area of each class in each picture: what can match."""
    seen: Counter[tuple[int, int]] = Counter()
    keep = []
    columns = (truth.image_ids.tolist(), truth.category_ids.tolist(), truth.crowd, truth.boxes)
    for image_id, category_id, crowd, box in zip(*columns, strict=True):
        counted = not crowd and box[2] > 0 and box[3] > 0
        seen[image_id, category_id] += counted
        keep.append(crowd or (counted and seen[image_id, category_id] <= MAX_DETECTIONS))
    return truth.select(np.asarray(keep, dtype=bool))


def _what_is_wrong(evaluation: Evaluation, truth: GroundTruth, found: DetectionColumns) -> str:
    lines = []
    for category, (name, score) in zip(truth.categories, evaluation.classes.items(), strict=True):
        count = int((found.category_ids == category["id"]).sum())
        if score.boxes and score.AP < 1 - 1e-6:
            lines.append(f"'{name}' (id {category['id']}): {score.boxes} boxes, {count} detections, AP {score.AP:.3f}")
    more = f" and {len(lines) - 5} classes more" if len(lines) > 5 else ""
    return (
        f"the ground truth given as detections scores AP {evaluation.metrics['AP']:.3f}, it must be 1: "
        f"{'; '.join(lines[:5])}{more}. Equal counts point to boxes that were moved or scaled "
        "(picture sizes, bbox not x y width height), unequal ones to mixed-up category or image ids"
    )


def _evaluate(truth: GroundTruth, found: DetectionColumns, backend: Backend) -> Evaluation:
    if backend not in ("hotcoco", "pycocotools"):
        raise ValueError(f"backend must be hotcoco or pycocotools, got {backend!r}")
    precision, recall = (_hotcoco if backend == "hotcoco" else _pycocotools)(truth, found)
    classes = {}
    for k, category in enumerate(truth.categories):
        boxes = int(((truth.category_ids == category["id"]) & ~truth.crowd).sum())
        part = slice(k, k + 1)
        score = ClassScore(
            mean_known(precision[:, :, part, 0, 2]),
            mean_known(precision[0, :, part, 0, 2]),
            mean_known(recall[:, part, 0, 2]),
            boxes,
        )
        name = category["name"]
        classes[f"{name} ({category['id']})" if name in classes else name] = score
    return Evaluation(_metrics(precision, recall), classes)


def _metrics(precision: Table, recall: Table) -> dict[str, float]:
    parts = (
        precision[:, :, :, 0, 2], precision[0, :, :, 0, 2], precision[5, :, :, 0, 2],
        *(precision[:, :, :, area, 2] for area in (1, 2, 3)),
        *(recall[:, :, 0, limit] for limit in (0, 1, 2)),
        *(recall[:, :, area, 2] for area in (1, 2, 3)),
    )  # fmt: skip
    return {name: mean_known(part) for name, part in zip(COCO_METRICS, parts, strict=True)}


def mean_known(values: Table) -> float:
    """Mean of what is not -1; -1 where nothing is left."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def hotcoco_evaluator(truth: GroundTruth, found: DetectionColumns) -> hotcoco.COCOeval:
    """hotcoco's evaluator, not run yet; both are numbered from 1, in their order."""
    ground_truth = hotcoco.COCO.from_arrays(
        truth.images,
        truth.categories,
        truth.image_ids,
        truth.category_ids,
        truth.boxes,
        ids=np.arange(1, len(truth.boxes) + 1),
        area=truth.areas,
        iscrowd=truth.crowd,
    )
    columns = (found.image_ids, found.boxes, found.scores, found.category_ids)
    detections = ground_truth.load_res(np.column_stack(columns).astype(np.float64))
    return hotcoco.COCOeval(ground_truth, detections, "bbox")


def _hotcoco(truth: GroundTruth, found: DetectionColumns) -> tuple[Table, Table]:
    return _tables(hotcoco_evaluator(truth, found))


def _pycocotools(truth: GroundTruth, found: DetectionColumns) -> tuple[Table, Table]:
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        return _tables(COCOeval(_pycoco(truth, _truth_rows(truth)), _pycoco(truth, _found_rows(found)), "bbox"))


def _pycoco(truth: GroundTruth, annotations: Iterable[Json]) -> Any:
    """An index of pycocotools; made by hand, since its `loadRes` fails without detections.

    Ids are numbered from 1: pycocotools marks a match by the id of its partner, and takes 0 for no match.
    """
    from pycocotools.coco import COCO

    coco = COCO()
    numbered = [{"id": number, **row} for number, row in enumerate(annotations, start=1)]
    coco.dataset = {"images": truth.images, "categories": truth.categories, "annotations": numbered}
    coco.createIndex()
    return coco


def _truth_rows(truth: GroundTruth) -> Iterable[Json]:
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    columns = (truth.image_ids, truth.category_ids, truth.boxes, truth.areas, truth.crowd.astype(int))
    for values in zip(*(column.tolist() for column in columns), strict=True):
        yield dict(zip(keys, values, strict=True))


def _found_rows(found: DetectionColumns) -> Iterable[Json]:
    keys = ("image_id", "category_id", "bbox", "area", "score")
    areas = found.boxes[:, 2] * found.boxes[:, 3]
    columns = (found.image_ids, found.category_ids, found.boxes, areas, found.scores)
    for values in zip(*(column.tolist() for column in columns), strict=True):
        yield {**dict(zip(keys, values, strict=True)), "iscrowd": 0}


def _tables(evaluation: Any) -> tuple[Table, Table]:
    """Precision and recall by either backend, whose evaluators share their names."""
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])
