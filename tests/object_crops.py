"""Objects cut out of real pictures by their annotations, in the layout of a classifier's data set."""

import json
from pathlib import Path

import cv2

from detkit.data.pictures import read_picture

# annotation file, folder of pictures, classes
SOURCES = (
    ("roadsigns/annotations/instances_train.json", "roadsigns/images", ("crosswalk", "stop")),
    ("bccd/annotations/instances_train.json", "bccd/images", ("WBC",)),
    ("coco-mini/annotations/instances_train2017.json", "coco-mini/train2017", ("person",)),
)
SMALLEST = 40  # px, of the shorter side


def cut_objects(real_data: Path, root: Path, train: int = 2, val: int = 1) -> Path:
    """root/{train,val}/<class>/*.png of four classes, the first large objects of each; returns root."""
    for annotations, images, classes in SOURCES:
        coco = json.loads((real_data / annotations).read_text())
        names = {image["id"]: image["file_name"] for image in coco["images"]}
        for name in classes:
            category = next(row["id"] for row in coco["categories"] if row["name"] == name)
            rows = [row for row in coco["annotations"] if row["category_id"] == category and not row.get("iscrowd")]
            large = [row for row in rows if min(row["bbox"][2:]) >= SMALLEST][: train + val]
            assert len(large) == train + val, f"{annotations} has too few large objects of {name}"
            for number, row in enumerate(large):
                folder = root / ("train" if number < train else "val") / name
                folder.mkdir(parents=True, exist_ok=True)
                x, y, w, h = (round(value) for value in row["bbox"])
                picture = read_picture(real_data / images / names[row["image_id"]])[y : y + h, x : x + w]
                cv2.imwrite(str(folder / f"{row['id']}.png"), picture[..., ::-1])
    return root
