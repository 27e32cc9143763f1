"""A small COCO data set on disk for the tests of reading: three pictures, two categories."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def content() -> dict[str, Any]:
    """Pictures of 100 x 80; category ids 7 (cat) and 3 (dog), so labels are dog 0, cat 1."""
    return {
        "images": [
            {"id": i, "file_name": f"{name}.png", "height": 80, "width": 100}
            for i, name in ((30, "c"), (10, "a"), (20, "b"))
        ],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 7, "bbox": [10, 20, 30, 40], "area": 700.5, "iscrowd": 0},
            {"id": 2, "image_id": 30, "category_id": 3, "bbox": [0, 0, 100, 80]},
            {"id": 3, "image_id": 10, "category_id": 3, "bbox": [-5, 70, 20.5, 20], "iscrowd": 0},
            {"id": 4, "image_id": 10, "category_id": 7, "bbox": [50, 10, 25, 30], "iscrowd": 1, "area": 90},
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


def write(root: Path, value: Any) -> tuple[Path, Path]:
    """Annotation file and picture folder, with the three pictures."""
    images = root / "images"
    images.mkdir(exist_ok=True)
    for name in "abc":
        Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(images / f"{name}.png")
    annotations = root / "set.json"
    annotations.write_text(value if isinstance(value, str) else json.dumps(value))
    return annotations, images
