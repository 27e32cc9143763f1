"""COCO files through the fast parser: what is kept, what is left out, and what falls back to Python's."""

import json
import math

import pytest

from detkit.coco_json import parse_annotations, parse_detections

ROW = {"id": 3, "image_id": 7, "category_id": 1, "bbox": [1, 2.5, 3, 4], "area": 12.25, "iscrowd": 0}
FILE = {
    "info": {"year": 2017},
    "images": [{"id": 7, "file_name": "a.jpg", "height": 4, "width": 5, "license": 1}],
    "annotations": [{**ROW, "segmentation": [[1, 2, 3, 4, 5, 6]]}],
    "categories": [{"id": 1, "name": "ä", "supercategory": "thing"}],
}


def test_polygons_and_the_like_are_left_out() -> None:
    assert parse_annotations(json.dumps(FILE).encode()) == {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 4, "width": 5}],
        "annotations": [ROW],
        "categories": [{"id": 1, "name": "ä"}],
    }


def test_numbers_keep_their_type_and_their_bits() -> None:
    numbers = [0.1, 1e22, 5e-324, 123456.78901234567, 7, -(2**62), 1.7976931348623157e308]
    row = parse_annotations(json.dumps(FILE | {"annotations": [ROW | {"bbox": numbers}]}).encode())["annotations"][0]
    assert row["bbox"] == numbers
    assert [type(value) for value in row["bbox"]] == [type(value) for value in numbers]


@pytest.mark.parametrize(
    "content",
    [{"images": []}, [], FILE | {"images": {}}, FILE | {"annotations": [ROW, 5]}, FILE | {"annotations": [None]}],
)
def test_files_of_another_shape_come_back_whole(content: object) -> None:
    assert parse_annotations(json.dumps(content).encode()) == content


def test_what_only_pythons_parser_takes() -> None:
    (row,) = parse_detections(b'[{"image_id": 1, "score": NaN, "extra": 1}]')
    assert math.isnan(row["score"])
    name = parse_annotations(json.dumps(FILE | {"categories": [{"id": 1, "name": "\ud800"}]}).encode())
    assert name["categories"][0]["name"] == "\ud800"
    assert parse_annotations(json.dumps(FILE).encode("utf-8-sig")) == FILE


def test_broken_json_says_where() -> None:
    with pytest.raises(json.JSONDecodeError, match="line 1 column 15"):
        parse_detections(b'[{"image_id": ')
