"""COCO metrics: numbers by hand, both backends against each other, ground truth scored as detections."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from detkit.evaluation.coco import (
    COCO_METRICS,
    Backend,
    check_ground_truth,
    detection_rows,
    evaluate_coco,
    evaluate_detections,
    per_class_ap,
    perfect_rows,
    write_predictions,
)
from detkit.evaluation.run import predict_all
from detkit.evaluation.table import class_table, metrics_table
from detkit.types import Batch, Detection, Meta, Target

BACKENDS: tuple[Backend, ...] = ("hotcoco", "pycocotools")
REAL = (
    "coco-mini/annotations/instances_val2017.json",
    "coco-mini/annotations/instances_train2017.json",
    "roadsigns/annotations/instances_val.json",
    "bccd/annotations/instances_val.json",
)
Json = dict[str, Any]


def ground_truth(*boxes: Json, categories: tuple[int, ...] = (1,), images: tuple[int, ...] = (1, 2)) -> Json:
    """Annotations of pictures of 200 x 200, numbered from 0 (an id that pycocotools takes for 'no match')."""
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 200, "width": 200} for i in images],
        "categories": [{"id": c, "name": f"class {c}"} for c in categories],
        "annotations": [{"id": i, "image_id": 1, "category_id": 1, **box} for i, box in enumerate(boxes)],
    }


def row(bbox: list[float], score: float, image_id: int = 1, category_id: int = 1) -> Json:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_box_by_hand(backend: Backend) -> None:
    truth = ground_truth({"bbox": [0, 0, 100, 100]})
    metrics = evaluate_coco(truth, [row([0, 0, 62, 100], 0.9)], backend)
    # IoU 0.62 passes 0.50, 0.55 and 0.60 of the ten thresholds; the object has 100^2 > 96^2 pixels: large.
    expected = {"AP": 0.3, "AP50": 1, "AP75": 0, "APs": -1, "APm": -1, "APl": 0.3}
    expected |= {"AR1": 0.3, "AR10": 0.3, "AR100": 0.3, "ARs": -1, "ARm": -1, "ARl": 0.3}
    assert tuple(metrics) == COCO_METRICS
    assert metrics == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_false_alarm_above_a_hit_by_hand(backend: Backend) -> None:
    truth = ground_truth({"bbox": [0, 0, 50, 50]}, {"bbox": [100, 100, 50, 50]})
    rows = [row([0, 100, 50, 50], 0.9), row([0, 0, 50, 50], 0.8)]
    # Recall stops at 1/2 with precision 1/2: 51 of the 101 recall points (0 to 0.50) have it.
    metrics = evaluate_coco(truth, rows, backend)
    assert metrics["AP"] == pytest.approx(0.5 * 51 / 101)
    assert metrics["AR1"] == 0
    assert metrics["AR10"] == 0.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_crowd_region_is_neither_hit_nor_false_alarm(backend: Backend) -> None:
    truth = ground_truth({"bbox": [0, 0, 50, 50]}, {"bbox": [100, 0, 100, 200], "iscrowd": 1})
    inside = [row([120.0, 30.0 * i, 20, 20], 0.95) for i in range(5)]
    rows = [*inside, row([0, 0, 50, 50], 0.5)]
    assert evaluate_coco(truth, rows, backend)["AP"] == pytest.approx(1)
    assert evaluate_coco(ground_truth({"bbox": [0, 0, 50, 50]}), rows, backend)["AP"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_category_ids_with_gaps_and_classes_by_name(backend: Backend) -> None:
    boxes = [{"bbox": [10, 10, 20, 20], "category_id": 90}, {"bbox": [60, 60, 40, 40], "category_id": 7}]
    truth = ground_truth(*boxes, categories=(90, 7, 13))
    classes = per_class_ap(truth, [row([60, 60, 40, 40], 0.9, category_id=7)], backend)
    assert list(classes) == ["class 7", "class 13", "class 90"]
    assert [score.boxes for score in classes.values()] == [1, 0, 1]
    assert [score.AP for score in classes.values()] == pytest.approx([1, -1, 0])
    assert [score.AR100 for score in classes.values()] == pytest.approx([1, -1, 0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_detections_and_empty_ground_truth(backend: Backend) -> None:
    box = {"bbox": [0, 0, 20, 20]}
    metrics = evaluate_coco(ground_truth(box), [], backend)
    assert {metrics[name] for name in ("AP", "AP50", "APs", "AR100", "ARs")} == {0}
    assert {metrics[name] for name in ("APm", "APl")} == {-1}
    assert set(evaluate_coco(ground_truth(), [row([0, 0, 9, 9], 0.5)], backend).values()) == {-1}
    assert set(evaluate_coco(ground_truth(categories=()), [], backend).values()) == {-1}


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_pictures_asked_for(backend: Backend) -> None:
    truth = ground_truth({"bbox": [0, 0, 20, 20]}, {"bbox": [0, 0, 20, 20], "image_id": 2})
    rows = [row([0, 0, 20, 20], 0.9), row([100, 100, 20, 20], 0.95, image_id=2)]
    assert evaluate_coco(truth, rows, backend, image_ids=[1])["AP"] == pytest.approx(1)
    assert evaluate_coco(truth, rows, backend, image_ids=[2])["AP"] == 0
    with pytest.raises(ValueError, match=r"image ids .*: 77"):
        evaluate_coco(truth, rows, backend, image_ids=[77])


def test_inputs_stay_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    truth, rows = ground_truth({"bbox": [0, 0, 20, 20]}), [row([0, 0, 20, 20], 0.9)]
    before = copy.deepcopy((truth, rows))
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    write_predictions(tmp_path / "new" / "rows.json", rows)
    for backend in BACKENDS:
        from_files = evaluate_coco(tmp_path / "truth.json", tmp_path / "new" / "rows.json", backend)
        assert from_files == evaluate_coco(truth, rows, backend)
    assert (truth, rows) == before
    assert capfd.readouterr() == ("", "")


def perturbed(truth: Path) -> list[Json]:
    """Each object twice, shifted, with scores that tie often and some wrong classes."""
    rng = np.random.default_rng(0)
    content = json.loads(truth.read_text())
    categories = [category["id"] for category in content["categories"]]
    rows = []
    for annotation in content["annotations"] * 2:
        x, y, w, h = annotation["bbox"]
        dx, dy, dw, dh = rng.normal(0, 0.1, 4)
        category = annotation["category_id"] if rng.random() < 0.9 else int(rng.choice(categories))
        bbox = [x + dx * w, y + dy * h, max(1, w + dw * w), max(1, h + dh * h)]
        rows.append(row(bbox, round(float(rng.random()), 2), annotation["image_id"], category))
    return rows


@pytest.mark.parametrize("annotations", REAL)
def test_backends_agree_on_real_annotations(real_data: Path, annotations: str) -> None:
    rows = perturbed(real_data / annotations)
    ours, reference = (evaluate_detections(real_data / annotations, rows, backend) for backend in BACKENDS)
    assert ours.metrics == pytest.approx(reference.metrics, abs=1e-12, rel=0)
    assert ours.classes.keys() == reference.classes.keys()
    for name, score in ours.classes.items():
        assert vars(score) == pytest.approx(vars(reference.classes[name]), abs=1e-12, rel=0)
    assert 0.1 < ours.metrics["AP"] < 0.9


@pytest.mark.parametrize("annotations", REAL)
def test_numbers_are_those_of_pycocotools_itself(real_data: Path, annotations: str) -> None:
    """The reference used as its authors do, with `loadRes` and `summarize`, on ids that do not contain 0."""
    from pycocotools.coco import COCO  # type: ignore[import-untyped]
    from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]

    rows = perturbed(real_data / annotations)
    metrics = evaluate_coco(real_data / annotations, rows)
    truth = COCO(str(real_data / annotations))
    evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(rows)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert list(metrics.values()) == pytest.approx(evaluation.stats.tolist(), abs=1e-12, rel=0)


@pytest.mark.parametrize("annotations", REAL)
@pytest.mark.parametrize("backend", BACKENDS)
def test_perfect_rows_score_one_on_real_annotations(real_data: Path, annotations: str, backend: Backend) -> None:
    path = real_data / annotations
    assert evaluate_coco(path, perfect_rows(path), backend)["AP"] == pytest.approx(1, abs=1e-9)
    assert check_ground_truth(path, backend=backend) == pytest.approx(1, abs=1e-9)


def test_check_accepts_what_cannot_match() -> None:
    crowded = [{"bbox": [2.0 * (i % 90), 2.0 * (i // 90), 2, 2]} for i in range(130)]
    assert evaluate_coco(ground_truth(*crowded), perfect_rows(ground_truth(*crowded)))["AP"] < 0.8
    assert check_ground_truth(ground_truth(*crowded)) == pytest.approx(1)
    box = {"bbox": [10, 10, 20, 20]}
    assert check_ground_truth(ground_truth(box, box, {"bbox": [50, 50, 0, 20]})) == pytest.approx(1)
    overhang = ground_truth({"bbox": [-50, 10, 100, 20]}, {"bbox": [300, 10, 20, 20]})
    assert check_ground_truth(overhang, [row([0, 10, 50, 20], 1)]) == pytest.approx(1)


def test_check_says_what_is_wrong() -> None:
    boxes: list[Json] = [{"bbox": [10, 10, 20, 20]}, {"bbox": [50, 50, 20, 20], "category_id": 2}]
    truth = ground_truth(*boxes, categories=(1, 2))
    swapped = [{**r, "category_id": 3 - r["category_id"]} for r in perfect_rows(truth)]
    with pytest.raises(ValueError, match=r"AP 0\.000.*'class 1' \(id 1\): 1 boxes, 1 detections"):
        check_ground_truth(truth, swapped)
    with pytest.raises(ValueError, match=r"'class 2' \(id 2\): 1 boxes, 0 detections"):
        check_ground_truth(truth, perfect_rows(truth)[:1])
    with pytest.raises(ValueError, match="no boxes in the 2 pictures"):
        check_ground_truth(ground_truth({"bbox": [0, 0, 9, 9], "iscrowd": 1}))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row([0, 0, 1, 1], 1, image_id=9), r"detections: image ids .*: 9"),
        (row([0, 0, 1, 1], 1, category_id=5), r"detections: category ids .*: 5"),
        (row([0, 0, 1], 1), "bbox must be 4 numbers, got .* in row 1"),
        (row([0, 0, float("nan"), 1], 1), "must be finite"),
        (row([0, 0, -3, 1], 1), "not below 0"),
        (row([0, 0, 3, 1], float("inf")), "score is not finite"),
        ({"image_id": 1, "category_id": 1, "score": 1}, "bbox is missing in row 1"),
        ({**row([0, 0, 3, 1], 1), "image_id": "1"}, "image_id must be a whole number, got '1'"),
    ],
)
def test_bad_rows_are_refused(bad: Json, message: str) -> None:
    truth = ground_truth({"bbox": [0, 0, 20, 20]})
    with pytest.raises(ValueError, match=message):
        evaluate_coco(truth, [row([0, 0, 1, 1], 1), bad])


def test_bad_ground_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*absent\.json"):
        evaluate_coco(tmp_path / "absent.json", [])
    (tmp_path / "half.json").write_text('{"images": [')
    with pytest.raises(ValueError, match=r"half\.json is no valid JSON"):
        evaluate_coco(tmp_path / "half.json", [])
    with pytest.raises(ValueError, match="expected COCO annotations"):
        evaluate_coco({"images": []}, [])
    with pytest.raises(ValueError, match="unknown category ids: 4"):
        evaluate_coco(ground_truth({"bbox": [0, 0, 1, 1], "category_id": 4}), [])
    with pytest.raises(ValueError, match="got \\[1, 2, 3\\] in annotation 0"):
        evaluate_coco(ground_truth({"bbox": [1, 2, 3]}), [])
    with pytest.raises(ValueError, match="backend"):
        evaluate_coco(ground_truth(), [], "cocoeval")  # type: ignore[arg-type]


def detection(boxes: list[list[float]], labels: list[int], scores: list[float]) -> Detection:
    return Detection(
        boxes=torch.tensor(boxes).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        scores=torch.tensor(scores),
    )


def test_detection_rows_map_labels_and_leave_out_unknown_classes() -> None:
    found = [
        detection([[1, 2, 4, 8], [0, 0, 5, 5], [2, 2, 3, 3]], [1, 0, 2], [0.5, 0.25, 0.125]),
        detection([], [], []),
    ]
    rows = detection_rows(found, [17, 18], [3, 90, None])
    assert rows == [row([1, 2, 3, 6], 0.5, 17, 90), row([0, 0, 5, 5], 0.25, 17, 3)]
    assert json.loads(json.dumps(rows)) == rows


def test_predictions_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write the predictions"):
        write_predictions(tmp_path / "file" / "rows.json", [])
    write_predictions(tmp_path / "rows.json", [])
    assert json.loads((tmp_path / "rows.json").read_text()) == []


def test_predict_all_scales_back_to_the_original() -> None:
    def predict(images: list[Tensor]) -> list[Detection]:
        assert not torch.is_grad_enabled()
        boxes = [[10.0, 10.0, 20.0, 20.0], [-5.0, 0.0, 60.0, 40.0], [55.0, 0.0, 60.0, 40.0]]
        return [detection(boxes, [0, 1, 0], [0.9, 0.8, 0.7]) for _ in images]

    empty = Target(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    metas = [Meta(image_id=i, file_name=f"{i}.jpg", height=80, width=150) for i in range(3)]
    image = torch.zeros(3, 40, 50, dtype=torch.uint8)  # the picture of 80 x 150 at 1/2 and 1/3
    batches = [Batch([image] * 2, [empty] * 2, metas[:2]), Batch([image], [empty], metas[2:])]
    done: list[int] = []
    found, origins = predict_all(predict, batches, done.append)
    assert done == [2, 1]
    assert [meta["image_id"] for meta in origins] == [0, 1, 2]
    assert len(found) == 3
    # The second box is clipped to the picture, the third lies outside and is dropped.
    torch.testing.assert_close(found[2]["boxes"], torch.tensor([[30.0, 20, 60, 40], [0, 0, 150, 80]]))
    assert found[2]["labels"].tolist() == [0, 1]


def test_tables_show_numbers_and_open_ones_as_a_dash() -> None:
    truth = ground_truth({"bbox": [0, 0, 100, 100]}, categories=(1, 2))
    evaluation = evaluate_detections(truth, [row([0, 0, 62, 100], 0.9)])
    text = "".join(rendered(table) for table in (metrics_table(evaluation.metrics), class_table(evaluation.classes)))
    assert "0.300" in text and "AR100" in text and "class 2" in text
    assert "-1" not in text and "no such objects" in text


def rendered(table: Table) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()
