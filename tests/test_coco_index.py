"""The packed index of a COCO file: numbers by hand, and the counts of the real sets."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from detkit.data.check import check_target
from detkit.data.coco import CocoIndex, load_coco
from detkit.data.layout import find_layout
from tests.coco_files import content, write


@pytest.fixture
def index(tmp_path: Path) -> CocoIndex:
    return load_coco(*write(tmp_path, content()))


def test_pictures_keep_the_order_of_the_file(index: CocoIndex) -> None:
    assert len(index) == 3
    assert index.image_ids.tolist() == [30, 10, 20]
    assert [index.file_name(i) for i in range(3)] == ["c.png", "a.png", "b.png"]
    assert index.path(1) == index.images / "a.png"
    assert index.heights.tolist() == [80] * 3 and index.widths.tolist() == [100] * 3


def test_labels_ascend_with_the_category_ids(index: CocoIndex) -> None:
    assert index.classes == ("dog", "cat")
    assert index.category_ids == (3, 7)


def test_boxes_are_clipped_corners_and_crowds_are_ignored(index: CocoIndex) -> None:
    target = index.target(1)
    assert target["boxes"].tolist() == [[10, 20, 40, 60], [0, 70, 15.5, 80]]
    assert target["labels"].tolist() == [1, 0]
    assert target["ignore"].tolist() == [[50, 10, 75, 40]]
    assert (index.clipped, index.dropped) == (1, 0)
    assert "ignore" not in index.target(0)
    assert index.target(2)["boxes"].shape == (0, 4)
    assert [index.is_empty(i) for i in range(3)] == [False, False, True]


def test_every_target_passes_the_gate(index: CocoIndex) -> None:
    for i in range(3):
        target = index.target(i)
        assert check_target(target, 2, 80, 100, "here")["boxes"].equal(target["boxes"])


def test_area_defaults_to_that_of_the_box(index: CocoIndex) -> None:
    assert index.areas.tolist() == [8000, 700.5, 410, 90]
    assert index.annotation_ids.tolist() == [2, 1, 3, 4]


def test_a_picture_with_only_a_crowd_is_empty(tmp_path: Path) -> None:
    value = content()
    del value["annotations"][0], value["annotations"][1]
    assert [row["id"] for row in value["annotations"]] == [2, 4]
    index = load_coco(*write(tmp_path, value), keep_empty=False)
    assert index.image_ids.tolist() == [30]
    assert index.target(0)["boxes"].tolist() == [[0, 0, 100, 80]]


def test_limit_takes_the_first_pictures_and_leaves_out_the_rest(tmp_path: Path) -> None:
    index = load_coco(*write(tmp_path, content()), limit=2)
    assert index.image_ids.tolist() == [30, 10] and index.dropped == 0
    assert load_coco(*write(tmp_path, content()), limit=1).annotation_ids.tolist() == [2]


def test_given_classes_are_matched_by_name(tmp_path: Path) -> None:
    index = load_coco(*write(tmp_path, content()), classes=["cat", "horse", "dog"])
    assert index.classes == ("cat", "horse", "dog")
    assert index.category_ids == (7, None, 3)
    assert index.target(1)["labels"].tolist() == [0, 2]


def test_a_category_beyond_the_classes_is_refused_only_when_used(tmp_path: Path) -> None:
    value = content()
    value["categories"].append({"id": 9, "name": "cow"})
    assert load_coco(*write(tmp_path, value), classes=["dog", "cat"]).category_ids == (3, 7)
    with pytest.raises(ValueError, match=r"'cat'.*dog, cow"):
        load_coco(*write(tmp_path, value), classes=["dog", "cow"])


def test_as_coco_reads_back_as_the_same_index(index: CocoIndex, tmp_path: Path) -> None:
    assert index.as_coco()["annotations"][2] == {
        **{"id": 3, "image_id": 10, "category_id": 3, "iscrowd": 0},
        **{"bbox": [0.0, 70.0, 15.5, 10.0], "area": 410.0},
    }
    again = load_coco(*write(tmp_path, json.loads(json.dumps(index.as_coco()))))
    assert again.fingerprint() == index.fingerprint()


def test_the_fingerprint_changes_with_the_content_and_not_with_the_place(index: CocoIndex, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    assert load_coco(*write(tmp_path / "moved", content())).fingerprint() == index.fingerprint()
    value = content()
    value["annotations"][0]["bbox"][0] = 11
    assert load_coco(*write(tmp_path / "moved", value)).fingerprint() != index.fingerprint()


def test_file_names_may_have_folders_and_any_letters(tmp_path: Path) -> None:
    annotations, images = write(tmp_path, content())
    (images / "straße").mkdir()
    (images / "b.png").rename(images / "straße" / "写真.png")
    value = content()
    value["images"][2]["file_name"] = "straße/写真.png"
    annotations.write_text(json.dumps(value))
    index = load_coco(annotations, images)
    assert index.file_name(2) == "straße/写真.png" and index.path(2).is_file()


def test_the_index_holds_no_objects_per_row(index: CocoIndex) -> None:
    arrays = [value for value in vars(index).values() if isinstance(value, np.ndarray)]
    assert len(arrays) == 11 and all(array.dtype != object for array in arrays)


def test_many_boxes_are_read_in_a_moment(tmp_path: Path) -> None:
    value = content()
    value["annotations"] = [
        {"id": i, "image_id": (10, 20, 30)[i % 3], "category_id": 7, "bbox": [i % 50, 1.5, 20, 30]}
        for i in range(50_000)
    ]
    annotations, images = write(tmp_path, value)
    start = time.process_time()
    index = load_coco(annotations, images)
    assert time.process_time() - start < 5  # a loop of tensors over the rows would take longer
    assert len(index.boxes) == 50_000
    assert index.boxes[index.annotation_ids == 7].tolist() == [[7, 1.5, 27, 31.5]]


# images, all boxes, crowd regions, as the sets' own description counts them
REAL = {
    "roadsigns": ((697, 983, 0), (178, 258, 0), ("trafficlight", "stop", "speedlimit", "crosswalk")),
    "bccd": ((205, 2804, 0), (87, 1137, 0), ("RBC", "WBC", "Platelets")),
    "coco-mini": ((57, None, 6), (66, None, 8), None),
}


@pytest.mark.parametrize("name", REAL)
def test_real_sets_have_the_counts_they_are_known_for(real_data: Path, name: str) -> None:
    train_counts, val_counts, classes = REAL[name]
    train, val = find_layout(real_data / name)
    index = load_coco(train.annotations, train.images)
    for part, (images, boxes, crowds) in (
        (index, train_counts),
        (load_coco(val.annotations, val.images, classes=index.classes), val_counts),
    ):
        rows = json.loads(part.annotations.read_text())["annotations"]
        assert (len(part), int(part.crowd.sum()), part.dropped) == (images, crowds, 0)
        assert len(part.boxes) == len(rows) and boxes in (None, len(rows))
        by_id = {row["id"]: row["bbox"] for row in rows}
        x, y, w, h = np.array([by_id[i] for i in part.annotation_ids.tolist()]).T
        inside = np.abs(part.boxes - np.stack((x, y, x + w, y + h), axis=1)).max(axis=1) < 0.01
        assert (~inside).sum() == part.clipped
    if classes:
        assert set(index.classes) == set(classes)
    else:
        assert len(index.classes) == 80 and index.category_ids[0] == 1 and index.category_ids[-1] == 90
