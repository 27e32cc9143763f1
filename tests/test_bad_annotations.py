"""Every fault of an annotation file gets one error that names the file, the row and the reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.data import check_target
from detkit.data.coco import load_coco
from tests.coco_files import content, write

Change = Callable[[dict[str, Any]], object]


def refusal(root: Path, value: Any, **options: Any) -> str:
    annotations, images = write(root, value)
    with pytest.raises(ValueError) as caught:
        load_coco(annotations, images, **options)
    message = str(caught.value)
    assert str(annotations) in message
    return message


def change(part: str, place: int, **values: Any) -> Change:
    return lambda value: value[part][place].update(values)


def box(*values: Any) -> Change:
    return change("annotations", 2, bbox=list(values))


# a fault of one row: what to change, and what the error must say
ROWS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "box of three": (box(1, 2, 3), ("annotation 3", "four numbers", "[1, 2, 3]")),
    "box of text": (box("1", 2, 3, 4), ("annotation 3", "four numbers", "'1'")),
    "box of truth values": (box(True, 2, 3, 4), ("annotation 3", "four numbers", "True")),
    "box is null": (change("annotations", 2, bbox=None), ("annotation 3", "four numbers", "None")),
    "box is an object": (change("annotations", 2, bbox={"x": 1}), ("annotation 3", "four numbers")),
    "box of lists": (box([1], 2, 3, 4), ("annotation 3", "four numbers")),
    "no box": (lambda v: v["annotations"][2].pop("bbox"), ("annotation 3", "four numbers")),
    "not a number": (box(float("nan"), 2, 3, 4), ("annotation 3", "not finite", "nan")),
    "infinite": (box(1, 2, float("inf"), 4), ("annotation 3", "not finite", "inf")),
    "beyond any float": (box(1, 2, 10**400, 4), ("annotation 3", "four numbers")),
    "zero width": (box(1, 2, 0, 4), ("annotation 3", "no width or height", "[1.0, 2.0, 0.0, 4.0]")),
    "negative height": (box(1, 2, 3, -4), ("annotation 3", "no width or height")),
    "outside, right": (box(100, 2, 3, 4), ("annotation 3", "outside", "100 x 80")),
    "outside, above": (box(1, -9, 3, 9), ("annotation 3", "outside")),
    "too thin": (box(50, 2, 1e-9, 4), ("annotation 3", "thin")),
    "repeated id": (change("annotations", 2, id=2), ("annotation 2", "twice")),
    "unknown image": (change("annotations", 2, image_id=99), ("annotation 3", "image_id 99")),
    "image id is text": (change("annotations", 2, image_id="10"), ("annotation 3", "image_id '10'")),
    "unknown category": (change("annotations", 2, category_id=99), ("annotation 3", "category_id 99")),
    "no category": (lambda v: v["annotations"][2].pop("category_id"), ("annotation 3", "category_id None")),
    "id is text": (change("annotations", 2, id="x"), ("annotation 2 of the list", "'id'")),
    "annotation is a list": (lambda v: v["annotations"].__setitem__(2, [1]), ("annotation 2 of the list", "[1]")),
    "iscrowd 2": (change("annotations", 2, iscrowd=2), ("annotation 3", "iscrowd", "2")),
    "iscrowd text": (change("annotations", 2, iscrowd="no"), ("annotation 3", "iscrowd", "'no'")),
    "leaves the folder": (change("images", 1, file_name="../a.png"), ("image 10", "leaves", "../a.png")),
    "leaves in the middle": (change("images", 1, file_name="x/../../a.png"), ("image 10", "leaves")),
    "leaves, Windows": (change("images", 1, file_name="..\\a.png"), ("image 10", "leaves")),
    "absolute": (change("images", 1, file_name="/etc/passwd"), ("image 10", "leaves", "/etc/passwd")),
    "absolute, Windows": (change("images", 1, file_name="C:\\a.png"), ("image 10", "leaves")),
    "zero byte": (change("images", 1, file_name="a\0.png"), ("image 10", "leaves")),
    "half a letter": (change("images", 1, file_name="\ud800.png"), ("image 10", "text")),
    "missing file": (change("images", 1, file_name="gone.png"), ("image 10", "gone.png")),
    "a folder": (change("images", 1, file_name="."), ("image 10",)),
    "no file name": (lambda v: v["images"][1].pop("file_name"), ("image 10", "file_name")),
    "no height": (lambda v: v["images"][1].pop("height"), ("image 10", "height")),
    "width 0": (change("images", 1, width=0), ("image 10", "width", "0")),
    "width is text": (change("images", 1, width="100"), ("image 10", "width", "'100'")),
    "height is no whole number": (change("images", 1, height=80.5), ("image 10", "height", "80.5")),
    "image without id": (lambda v: v["images"][2].pop("id"), ("image 2 of the list", "'id'")),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_stops_and_is_named(tmp_path: Path, name: str) -> None:
    spoil, parts = ROWS[name]
    value = content()
    spoil(value)
    message = refusal(tmp_path, value)
    assert "1 row that cannot be used" in message and "data.on_bad=drop" in message
    assert message.count("\n") == 2
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_is_dropped_and_counted_on_demand(tmp_path: Path, name: str) -> None:
    value = content()
    ROWS[name][0](value)
    index = load_coco(*write(tmp_path, value), on_bad="drop")
    assert index.dropped == 1
    assert ROWS[name][1][0] in index.dropped_rows[0]
    if "image 10" in ROWS[name][1]:
        assert index.image_ids.tolist() == [30, 20] and index.annotation_ids.tolist() == [2]
    elif "image 2 of the list" in ROWS[name][1]:
        assert index.image_ids.tolist() == [30, 10] and index.annotation_ids.tolist() == [2, 1, 3, 4]
    else:
        assert index.image_ids.tolist() == [30, 10, 20] and index.annotation_ids.tolist() == [2, 1, 4]
    assert [row["id"] for row in index.as_coco()["annotations"]] == index.annotation_ids.tolist()


def double(part: str) -> Change:
    return lambda value: value[part].append(dict(value[part][0]))


# faults of the file as a whole stop, whatever data.on_bad says
STRUCTURE: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no images key": (lambda v: v.pop("images"), ("'images' is missing",)),
    "no annotations key": (lambda v: v.pop("annotations"), ("'annotations' is missing",)),
    "no categories key": (lambda v: v.pop("categories"), ("'categories' is missing",)),
    "images is an object": (lambda v: v.update(images={}), ("'images' must be a list", "object")),
    "no pictures": (lambda v: v.update(images=[], annotations=[]), ("empty",)),
    "no categories": (lambda v: v.update(categories=[], annotations=[]), ("categories", "empty")),
    "no annotations": (lambda v: v.update(annotations=[]), ("nothing to learn",)),
    "repeated image id": (double("images"), ("image id 30", "twice")),
    "repeated category id": (change("categories", 1, id=7), ("category id 7", "twice", "cat", "dog")),
    "repeated category name": (change("categories", 1, name="cat"), ("'cat'", "twice")),
    "category without name": (lambda v: v["categories"][1].pop("name"), ("category 1 of the list", "name")),
    "category id is text": (change("categories", 1, id="3"), ("category 1 of the list", "'3'")),
}


@pytest.mark.parametrize("on_bad", ["stop", "drop"])
@pytest.mark.parametrize("name", STRUCTURE)
def test_a_bad_structure_always_stops(tmp_path: Path, name: str, on_bad: str) -> None:
    spoil, parts = STRUCTURE[name]
    value = content()
    spoil(value)
    message = refusal(tmp_path, value, on_bad=on_bad)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"images": [', "not json", "[" * 100_000, "null"])
def test_broken_json_is_said_to_be_broken(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, text)
    assert "JSON" in message


def test_broken_json_is_located(tmp_path: Path) -> None:
    assert "line 2 column 14" in refusal(tmp_path, '{\n"images": [1 2]}')


def test_missing_files_and_folders(tmp_path: Path) -> None:
    annotations, images = write(tmp_path, content())
    for paths in ((tmp_path / "no.json", images), (annotations, tmp_path / "no"), (tmp_path, images)):
        with pytest.raises(ValueError) as caught:
            load_coco(*paths)
        assert any(str(path) in str(caught.value) for path in paths)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    annotations, images = write(tmp_path, content())
    annotations.write_bytes(b'{"images": "\xff"}')
    with pytest.raises(ValueError, match=r"set\.json.*JSON"):
        load_coco(annotations, images)


def test_twenty_rows_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    value = content()
    value["annotations"] += [
        {"id": 100 + i, "image_id": 20, "category_id": 7, "bbox": [1, 1, 0 if i % 2 else 5, 5]} for i in range(60)
    ]
    message = refusal(tmp_path, value)
    assert "30 rows" in message and "and 10 more" in message
    assert message.count("no width or height") == 20
    assert "annotation 101:" in message and "annotation 139:" in message and "annotation 141:" not in message
    index = load_coco(*write(tmp_path, value), on_bad="drop")
    assert index.dropped == 30 and len(index.boxes) == 34


@pytest.mark.parametrize("on_bad", ["stop", "drop"])
def test_corners_given_as_sizes_are_recognised(tmp_path: Path, on_bad: str) -> None:
    value = content()
    for row, corners in zip(
        value["annotations"], ([60, 50, 90, 70], [10, 5, 20, 30], [40, 40, 99, 80], [55, 2, 70, 60]), strict=True
    ):
        row["bbox"] = list(corners)
    message = refusal(tmp_path, value, on_bad=on_bad)
    assert "xyxy" in message and "3 of 4 boxes" in message and "annotation 2" not in message


def test_overhang_alone_is_no_sign_of_corners(tmp_path: Path) -> None:
    value = content()
    for row in value["annotations"]:
        row["bbox"] = [90, 70, 30, 30]
    assert load_coco(*write(tmp_path, value)).clipped == 4


def test_fractions_of_the_size_are_recognised(tmp_path: Path) -> None:
    value = content()
    for row in value["annotations"]:
        row["bbox"] = [0.1, 0.2, 0.5, 0.25]
    assert "fractions" in refusal(tmp_path, value)


def target(boxes: Any, labels: Any) -> Any:
    return {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels)}


BAD_TARGETS = {
    "nan": (target([[0, 0, float("nan"), 5]], [0]), "finite"),
    "infinite": (target([[0, 0, float("inf"), 5]], [0]), "finite"),
    "no width": (target([[5, 0, 5, 5]], [0]), "no width or height"),
    "upside down": (target([[0, 5, 5, 1]], [0]), "no width or height"),
    "outside": (target([[0, 0, 5, 5], [200, 0, 210, 5]], [0, 1]), "box 1 .*outside"),
    "label too large": (target([[0, 0, 5, 5]], [2]), r"label 2 of box 0 .*\[0, 2\)"),
    "label negative": (target([[0, 0, 5, 5]], [-1]), "label -1"),
    "unequal": (target([[0, 0, 5, 5]], [0, 1]), "1 boxes but 2 labels"),
    "shape": (target([[0, 0, 5]], [0]), "shape"),
    "flat": (target([0, 0, 5, 5], [0, 0, 0, 0]), "shape"),
    "labels of floats": (target([[0, 0, 5, 5]], [0.5]), "int64"),
    "boxes of whole numbers": ({"boxes": torch.tensor([[0, 0, 5, 5]]), "labels": torch.tensor([0])}, "float32"),
    "ignore": (
        {**target([[0, 0, 5, 5]], [0]), "ignore": torch.tensor([[9.0, 9, 9, 20]])},
        "ignore regions: box 0 .*no width",
    ),
}


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_the_gate_refuses(name: str) -> None:
    bad, reason = BAD_TARGETS[name]
    with pytest.raises(ValueError, match=f"^train.json, annotation 5.*{reason}"):
        check_target(bad, 2, height=80, width=100, where="train.json, annotation 5")


def test_the_gate_clips_overhang_and_lets_empty_targets_through() -> None:
    checked = check_target(target([[-5, 70, 15, 90]], [1]), 2, height=80, width=100, where="here")
    assert checked["boxes"].tolist() == [[0, 70, 15, 80]] and checked["labels"].tolist() == [1]
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    assert check_target(empty, 2, 80, 100, "here")["boxes"].shape == (0, 4)


def test_the_source_file_is_left_as_it_was(tmp_path: Path) -> None:
    annotations, images = write(tmp_path, content())
    before = annotations.read_bytes()
    load_coco(annotations, images)
    assert annotations.read_bytes() == before == json.dumps(content()).encode()
