"""hotcoco's diagnoses, joined: each number of a small set by hand."""

import numpy as np
import pytest

from detkit.evaluation.coco import hotcoco_evaluator
from detkit.evaluation.columns import DetectionColumns, GroundTruth, read_detections, read_ground_truth
from detkit.evaluation.diagnosis import Diagnosis, diagnose

NAMES = {10: "a", 20: "b", 30: "empty"}
OBJECTS = [  # picture, category, box, crowd
    (1, 10, [0, 0, 50, 50], 0),
    (1, 20, [100, 100, 50, 50], 0),
    (2, 10, [0, 0, 50, 50], 0),
    (2, 10, [100, 0, 60, 60], 1),
    (3, 20, [0, 0, 20, 20], 0),
]
FOUND = [
    (1, 10, [0, 0, 50, 50], 0.9),  # right
    (1, 10, [100, 100, 50, 50], 0.8),  # b's place: class
    (2, 10, [0, 0, 50, 50], 0.7),  # right
    (2, 10, [0, 0, 50, 48], 0.3),  # duplicate
    (2, 10, [100, 0, 30, 30], 0.95),  # on the crowd
    (3, 20, [0, 0, 20, 20], 0.6),  # right
    (3, 20, [100, 0, 20, 20], 0.5),  # background
    (3, 30, [0, 100, 20, 20], 0.4),  # a class without objects
]


Found = list[tuple[int, int, list[int], float]]


def columns(found: Found) -> tuple[GroundTruth, DetectionColumns]:
    annotations = [
        {"id": 7 + n, "image_id": i, "category_id": c, "bbox": box, "iscrowd": crowd}
        for n, (i, c, box, crowd) in enumerate(OBJECTS)
    ]
    images = [{"id": i, "width": 200, "height": 200, "file_name": f"{i}.jpg"} for i in (1, 2, 3)]
    categories = [{"id": i, "name": name} for i, name in NAMES.items()]
    truth = read_ground_truth({"images": images, "annotations": annotations, "categories": categories})
    rows = [{"image_id": i, "category_id": c, "bbox": box, "score": score} for i, c, box, score in found]
    return truth, read_detections(rows, truth, (1, 2, 3))


def example(found: Found = FOUND) -> Diagnosis:
    return diagnose(*columns(found))


def test_detections_and_objects_have_their_state() -> None:
    seen = example()
    assert seen.correct.tolist() == [True, False, True, False, False, True, False, False]
    assert seen.ignored.tolist() == [False, False, False, False, True, False, False, False]
    assert seen.match.tolist() == [0, -1, 2, -1, 5]


def test_the_operating_point_keeps_the_best_of_each_class() -> None:
    seen = example()
    a, b, empty = seen.classes
    # a: right, wrong, right, wrong with 2 objects: F1 is 2/3, 2/4, 4/5, 4/6; halfway from 0.7 to 0.3
    assert a.point is not None and a.threshold == pytest.approx(0.5) and abs(a.point.F1 - 4 / 5) < 1e-9
    # b: right, wrong with 2 objects: 2/3, 2/4
    assert b.point is not None and b.threshold == pytest.approx(0.55) and abs(b.point.F1 - 2 / 3) < 1e-9
    assert empty.point is None and empty.threshold == 0.5 and empty.objects == 0 and empty.AP == -1
    assert seen.kept.tolist() == [True, True, True, False, True, True, False, False]
    assert np.flatnonzero(seen.false_positives).tolist() == [1]
    assert seen.found.tolist() == [True, False, True, False, True]


def test_the_best_f1_is_that_of_hotcoco() -> None:
    truth, found = columns(FOUND)
    evaluator = hotcoco_evaluator(truth, found)
    evaluator.run()
    points = [c.point for c in diagnose(truth, found).classes if c.objects]
    best = [point.F1 for point in points if point is not None]
    assert evaluator.f_scores()["F1_50"] == pytest.approx(sum(best) / 2)


def test_classes_by_size() -> None:
    a, b, _ = example().classes
    assert (a.objects, b.objects) == (2, 2)
    assert a.APs == -1 and a.APm == pytest.approx(a.AP)  # 50 x 50 is medium
    # recall 1/2 at precision 1, that is 51 of 101 recall points; the other b is of medium size
    assert (b.AP50, b.APs, b.APm) == pytest.approx((51 / 101, 1, 0))
    np.testing.assert_allclose(b.precision[50], [1] * 51 + [0] * 50)


def test_confusion_at_the_operating_point() -> None:
    expected = [[2, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  # one b was called a; the crowd counts nowhere
    assert example().confusion.tolist() == expected


def test_no_detection_of_a_crowded_picture_is_left_out_of_the_confusion() -> None:
    """hotcoco by itself looks at 100 of a picture, over all classes."""
    ids = [{"id": 10, "name": "a"}, {"id": 20, "name": "b"}]
    boxes = [(10 + 10 * (n % 2), [12 * (n % 15), 12 * (n // 15), 10, 10]) for n in range(140)]
    annotations = [
        {"id": n, "image_id": 1, "category_id": c, "bbox": box, "iscrowd": 0} for n, (c, box) in enumerate(boxes, 1)
    ]
    images = [{"id": 1, "width": 200, "height": 200, "file_name": "1.jpg"}]
    truth = read_ground_truth({"images": images, "annotations": annotations, "categories": ids})
    rows = [{"image_id": 1, "category_id": c, "bbox": box, "score": 0.9} for c, box in boxes]
    seen = diagnose(truth, read_detections(rows, truth, (1,)))
    assert seen.confusion.tolist() == [[70, 0, 0], [0, 70, 0], [0, 0, 0]]


def test_errors_and_calibration() -> None:
    seen = example()
    counts = {error.name: error.count for error in seen.errors}
    assert counts == {"class": 1, "localisation": 0, "both": 0, "duplicate": 1, "background": 2, "missed": 0}
    lost = {error.name: error.AP_lost for error in seen.errors}
    # the b that was called a, put right: a rises from (51 + 50 * 2 / 3) / 101 to 1, b from 51 / 101 to 1
    assert lost["class"] == pytest.approx((50 / 3 + 50) / 101 / 2)
    assert lost["missed"] == 0
    # |score - right| of the seven that count, each alone in its bin
    distances = [0.1, 0.8, 0.3, 0.3, 0.4, 0.5, 0.4]
    np.testing.assert_allclose((seen.calibration.ECE, seen.calibration.MCE), (sum(distances) / 7, 0.8))
    assert seen.calibration.counts.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]


def test_no_detections() -> None:
    seen = example([])
    assert not len(seen.kept) and not seen.found.any() and (seen.match == -1).all()
    assert [c.AP for c in seen.classes] == [0, 0, -1]
    assert {error.name: error.count for error in seen.errors}["missed"] == 4
    assert seen.confusion.tolist() == [[0, 0, 0, 2], [0, 0, 0, 2], [0, 0, 0, 0], [0, 0, 0, 0]]
