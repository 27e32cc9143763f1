"""From two files, annotations and detections, to COCO's 12 numbers: detkit's default backend against pycocotools."""

import contextlib
import io
import json as json_lib
import tempfile
from pathlib import Path

import numpy as np
from measure import Count, Json, Quick, Row, Runs, alternate, report
from numpy.random import Generator
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detkit.cli.errors import run_command
from detkit.evaluation.coco import COCO_METRICS, evaluate_coco


def main(
    pictures: Count = 5000, classes: Count = 80, per_picture: Count = 60, runs: Runs = 1, quick: Quick = False,
    json: Json = None,
) -> None:  # fmt: skip
    """Draw annotations and detections, time both, compare the numbers to the bit."""
    if quick:
        pictures, classes, per_picture, runs = 40, 5, 10, 1
    with tempfile.TemporaryDirectory() as folder:
        truth, found = Path(folder) / "truth.json", Path(folder) / "found.json"
        count = write_files(truth, found, pictures, classes, per_picture)
        numbers: dict[str, dict[str, float]] = {}
        sides = {
            "ours": lambda: numbers.update(ours=evaluate_coco(truth, found)),
            "theirs": lambda: numbers.update(theirs=by_pycocotools(truth, found)),
        }
        seconds = alternate(sides, runs, warmup=0)
    row = Row(
        f"evaluation of {pictures} pictures, {classes} classes, {count} detections",
        f"{seconds['ours']:.2f} s",
        f"{seconds['theirs']:.1f} s",
        seconds["theirs"] / seconds["ours"],
        30,
        numbers["ours"] == numbers["theirs"],
        f"AP {numbers['ours']['AP']:.4f}, 12 numbers compared to the bit",
    )
    report([row], json)


def by_pycocotools(truth: Path, found: Path) -> dict[str, float]:
    """The 12 numbers as pycocotools' own example computes them."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(truth))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(str(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(COCO_METRICS, evaluation.stats.tolist(), strict=True))


def write_files(truth: Path, found: Path, pictures: int, classes: int, per_picture: int) -> int:
    """Seven boxes a picture on average; about as many detections hit one as not. Returns the number of detections."""
    rng = np.random.default_rng(0)
    annotations: list[dict[str, object]] = []
    rows: list[dict[str, object]] = []
    for image_id in range(1, pictures + 1):
        boxes = draw_boxes(rng, int(rng.integers(1, 14)))
        labels = rng.integers(1, classes + 1, len(boxes))
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": label, "bbox": box,
                 "area": box[2] * box[3], "iscrowd": int(rng.random() < 0.01)}
            )  # fmt: skip
        rows += draw_detections(rng, image_id, boxes, labels, classes, per_picture)
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 480, "width": 640} for i in range(1, pictures + 1)],
        "annotations": annotations,
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, classes + 1)],
    }
    truth.write_text(json_lib.dumps(content))
    found.write_text(json_lib.dumps(rows))
    return len(rows)


def draw_boxes(rng: Generator, count: int) -> NDArray[np.float64]:
    """Boxes (count, 4) x, y, width, height of all sizes in a picture of 640x480."""
    sides = np.exp(rng.uniform(np.log(8), np.log(400), (count, 2)))
    corners = rng.uniform(0, 1, (count, 2)) * np.maximum([640, 480] - sides, 1)
    return np.concatenate((corners, sides), axis=1).round(2)


def draw_detections(
    rng: Generator, image_id: int, boxes: NDArray[np.float64], labels: NDArray[np.int64], classes: int, count: int
) -> list[dict[str, object]]:
    """Half of them near a true box and mostly of its class, the others anywhere."""
    source = rng.integers(0, len(boxes), count // 2)
    near = boxes[source] * rng.normal(1, 0.1, (len(source), 4)).clip(0.5, 1.5)
    right = np.where(rng.random(len(source)) < 0.8, labels[source], rng.integers(1, classes + 1, len(source)))
    elsewhere = draw_boxes(rng, count - len(source))
    found = np.concatenate((near, elsewhere)).round(3).tolist()
    kinds = np.concatenate((right, rng.integers(1, classes + 1, len(elsewhere)))).tolist()
    scores = np.concatenate((rng.beta(3, 2, len(near)), rng.beta(1, 4, len(elsewhere)))).round(4).tolist()
    return [
        {"image_id": image_id, "category_id": kind, "bbox": box, "score": score}
        for box, kind, score in zip(found, kinds, scores, strict=True)
    ]


if __name__ == "__main__":
    run_command(main)
