"""A small real data set with faults: each of PLANTED puts one into it and tells where it must be found.

python tests/planted_faults.py ROADSIGNS FOLDER: writes the set, to look at with `detkit doctor FOLDER`.
"""

import copy
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

TRAIN, VAL = 40, 8  # pictures
Row = dict[str, Any]
EXIF_ORIENTATION = 0x0112


class SmallSet:
    """The first pictures of road signs, copied; `take` gives training pictures that no other fault has."""

    def __init__(self, source: Path, root: Path) -> None:
        self.root, self.images = root, root / "images"
        self.images.mkdir(parents=True)
        self.train, self.val = (self._copy(source, name, n) for name, n in (("train", TRAIN), ("val", VAL)))
        self._untouched = iter(copy.deepcopy(self.train["images"]))
        self._next_id = 100_000

    def _copy(self, source: Path, name: str, count: int) -> dict[str, list[Any]]:
        content = json.loads((source / f"annotations/instances_{name}.json").read_text())
        content["images"] = content["images"][:count]
        ids = {row["id"] for row in content["images"]}
        content["annotations"] = [row for row in content["annotations"] if row["image_id"] in ids]
        for row in content["images"]:
            shutil.copy(source / "images" / row["file_name"], self.images)
        return content

    def write(self) -> Path:
        (self.root / "annotations").mkdir(exist_ok=True)
        for name, content in (("train", self.train), ("val", self.val)):
            (self.root / f"annotations/instances_{name}.json").write_text(json.dumps(content))
        return self.root

    def take(self) -> Row:
        wanted = next(self._untouched)["id"]
        return next(row for row in self.train["images"] if row["id"] == wanted)

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def annotate(self, image: Row, bbox: Any, split: str = "train", **more: Any) -> int:
        """A further annotation; returns its id."""
        row = {"id": self.new_id(), "image_id": image["id"], "category_id": 1, "bbox": bbox, "iscrowd": 0}
        getattr(self, split)["annotations"].append(row | more)
        return int((row | more)["id"])

    def add_picture(self, split: str, image: Image.Image, like: Row, suffix: str = ".png", quality: int = 90) -> int:
        """A new file with a row and one box; returns the row's id."""
        row = {"id": self.new_id(), "height": like["height"], "width": like["width"]}
        row["file_name"] = f"new{row['id']}{suffix}"
        image.save(self.images / row["file_name"], quality=quality)
        getattr(self, split)["images"].append(row)
        self.annotate(row, [10, 10, 40, 40], split)
        return int(row["id"])

    def open(self, image: Row) -> Image.Image:
        with Image.open(self.images / image["file_name"]) as opened:
            return opened.convert("RGB")

    def tag(self, image: Row, orientation: int) -> int:
        """Give a picture's file an EXIF orientation."""
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        self.open(image).save(self.images / image["file_name"], exif=exif, quality=95)
        return int(image["id"])

    def category(self, name: str, *splits: str, boxes: tuple[str, ...] = ()) -> None:
        """A category in the lists of some splits, with a box in some."""
        number = self.new_id()
        for split in splits:
            getattr(self, split)["categories"].append({"id": number, "name": name})
        for k, split in enumerate(boxes):
            image = getattr(self, split)["images"][-1]
            self.annotate(image, [20 + 7 * k, 90, 50 + number % 17, 60], split, category_id=number)


class Planted(NamedTuple):
    """`plant` returns the ids of the pictures or annotations, or the words, by which the fault must be told."""

    code: str
    grade: str
    plant: Callable[[SmallSet], list[Any]]


def _missing(s: SmallSet) -> list[Any]:
    image = s.take()
    (s.images / image["file_name"]).unlink()
    return [image["id"]]


def _unreadable(s: SmallSet) -> list[Any]:
    truncated, empty, text = s.take(), s.take(), s.take()
    path = s.images / truncated["file_name"]
    path.write_bytes(path.read_bytes()[:2000])
    (s.images / empty["file_name"]).write_bytes(b"")
    (s.images / text["file_name"]).write_text("not a picture")
    return [truncated["id"], empty["id"], text["id"]]


def _resized(s: SmallSet) -> list[Any]:
    same_shape, other_shape = s.take(), s.take()
    s.open(same_shape).resize((same_shape["width"] // 2, same_shape["height"] // 2)).save(
        s.images / same_shape["file_name"]
    )
    s.open(other_shape).resize((other_shape["width"] // 2, other_shape["height"])).save(
        s.images / other_shape["file_name"]
    )
    return [same_shape["id"], other_shape["id"]]


def _turned(s: SmallSet) -> list[Any]:
    """Its annotations are for the picture as a viewer shows it."""
    image = s.take()
    image["height"], image["width"] = image["width"], image["height"]
    for row in s.train["annotations"]:
        if row["image_id"] == image["id"]:
            row["bbox"] = [5, 5, 20, 20]
            row["area"] = 400
    return [s.tag(image, 6)]


def _outside_folder(s: SmallSet) -> list[Any]:
    image = s.take()
    image["file_name"] = f"../images/../../{image['file_name']}"
    return [image["id"]]


def _repeated_file(s: SmallSet) -> list[Any]:
    image = s.take()
    twin = image | {"id": s.new_id()}
    s.train["images"].append(twin)
    return [twin["id"]]


def _near(s: SmallSet, split: str) -> list[Any]:
    image = s.take()
    brighter = s.open(image).point(lambda value: min(value + 4, 255))
    new = s.add_picture(split, brighter, image, ".jpg", 70)
    return [new if split == "train" else image["id"]]


def _leaked(s: SmallSet) -> list[Any]:
    image = s.take()
    s.add_picture("val", s.open(image), image)
    return [image["id"]]


def _duplicate(s: SmallSet) -> list[Any]:
    image = s.take()
    return [s.add_picture("train", s.open(image), image)]


def _unlisted(s: SmallSet) -> list[Any]:
    Image.new("RGB", (40, 30)).save(s.images / "nobody.png")
    return ["nobody.png"]


def _emptied(s: SmallSet) -> list[Any]:
    image = s.take()
    s.train["annotations"] = [row for row in s.train["annotations"] if row["image_id"] != image["id"]]
    return [image["id"]]


def _malformed_image(s: SmallSet) -> list[Any]:
    image = s.take()
    image["height"] = 0
    return [f"image {image['id']}"]


def _image_twice(s: SmallSet) -> list[Any]:
    image, other = s.take(), s.take()
    other["id"] = image["id"]
    return [image["id"]]


def _annotation_twice(s: SmallSet) -> list[Any]:
    first, second = s.take(), s.take()
    rows = [next(row for row in s.train["annotations"] if row["image_id"] == i["id"]) for i in (first, second)]
    rows[1]["id"] = rows[0]["id"]
    return [rows[0]["id"]]


def _box(*values: Any, **more: Any) -> Callable[[SmallSet], list[Any]]:
    return lambda s: [s.annotate(s.take(), list(values), **more)]


def _overlapping(category: int) -> Callable[[SmallSet], list[Any]]:
    def plant(s: SmallSet) -> list[Any]:
        image = s.take()
        s.annotate(image, [30, 30, 100, 100])
        return [s.annotate(image, [31, 30, 100, 101], category_id=category)]

    return plant


def _full(s: SmallSet) -> list[Any]:
    image = s.take()
    return [s.annotate(image, [0, 0, image["width"], image["height"]])]


def _corners(s: SmallSet) -> list[Any]:
    image = s.take()
    width, height = image["width"], image["height"]
    return [s.annotate(image, [width - 90, height - 80, width - 10, height - 20])]


def _category(name: str, *splits: str, boxes: tuple[str, ...] = ()) -> Callable[[SmallSet], list[Any]]:
    def plant(s: SmallSet) -> list[Any]:
        s.category(name, *splits, boxes=boxes)
        return [f"'{name}'"]

    return plant


def _nameless(s: SmallSet) -> list[Any]:
    s.train["categories"].append({"id": 77})
    return ["{'id': 77}"]


def _zero(s: SmallSet) -> list[Any]:
    s.train["categories"].append({"id": 0, "name": "zero"})
    return ["'zero'"]


def _other_id(s: SmallSet) -> list[Any]:
    s.train["categories"].append({"id": 55, "name": "moved"})
    s.val["categories"].append({"id": 56, "name": "moved"})
    return ["55 in train, 56"]


def _many_slivers(s: SmallSet) -> list[Any]:
    """Ten times as wide as high: no anchor fits; and so many that other classes are rare beside theirs."""
    image = s.take()
    for k in range(120):
        s.annotate(image, [k % 7, 2 + 2 * k, 60, 6], category_id=s.train["categories"][0]["id"])
    return ["below IoU 0.5"]


def _imbalance(s: SmallSet) -> list[Any]:
    s.category("once", "train", boxes=("train",))
    return ["has"]


PLANTED = (
    Planted("missing-picture", "error", _missing),
    Planted("unreadable-picture", "error", _unreadable),
    Planted("size-mismatch", "error", _resized),
    Planted("path-outside", "error", _outside_folder),
    Planted("leaked-picture", "error", _leaked),
    Planted("malformed-image", "error", _malformed_image),
    Planted("malformed-annotation", "error", lambda s: (_box(5, 5, 30, 30, iscrowd=7)(s), ["'iscrowd': 7"])[1]),
    Planted("malformed-category", "error", _nameless),
    Planted("duplicate-image-id", "error", _image_twice),
    Planted("duplicate-annotation-id", "error", _annotation_twice),
    Planted("unknown-image", "error", lambda s: [s.annotate({"id": 987654}, [5, 5, 30, 30])]),
    Planted("unknown-category", "error", _box(5, 5, 30, 30, category_id=4711)),
    Planted("malformed-box", "error", _box(5, 5, 30)),
    Planted("nonfinite-box", "error", _box(5, float("nan"), 30, 30)),
    Planted("empty-box", "error", _box(5, 5, 0, 30)),
    Planted("outside-box", "error", _box(900, 5, 30, 30)),
    Planted("category-not-in-train", "error", _category("only val", "val", boxes=("val",))),
    Planted("overhanging-box", "warning", _box(-20, 5, 60, 30)),
    Planted("full-picture-box", "warning", _full),
    Planted("tiny-box", "warning", _box(50, 50, 30, 1)),
    Planted("maybe-xyxy", "warning", _corners),
    Planted("duplicate-box", "warning", _overlapping(1)),
    Planted("conflicting-box", "warning", _overlapping(2)),
    Planted("wrong-area", "warning", _box(5, 5, 30, 30, area=5000)),
    Planted("exif-stored", "warning", lambda s: [s.tag(s.take(), 8)]),
    Planted("exif-ambiguous", "warning", lambda s: [s.tag(s.take(), 3), s.tag(s.take(), 2)]),
    Planted("repeated-file", "warning", _repeated_file),
    Planted("duplicate-picture", "warning", _duplicate),
    Planted("leaked-near-duplicate", "warning", lambda s: _near(s, "val")),
    Planted("unused-category", "warning", _category("never", "train")),
    Planted("category-only-outside-train", "warning", _category("late", "train", "val", boxes=("val",))),
    Planted("rare-category", "warning", _category("seldom", "train", "val", boxes=("train", "val"))),
    Planted("class-imbalance", "warning", _imbalance),
    Planted("anchor-misfit", "warning", _many_slivers),
    Planted("near-duplicate-picture", "note", lambda s: _near(s, "train")),
    Planted("exif-turned", "note", _turned),
    Planted("category-id-zero", "note", _zero),
    Planted("category-id-gap", "note", _category("far", "train")),
    Planted("category-id-differs", "note", _other_id),
    Planted("category-only-in-train", "note", _category("early", "train", "val", boxes=("train",))),
    Planted("crowd-regions", "note", _box(5, 5, 100, 100, iscrowd=1)),
    Planted("empty-picture", "note", _emptied),
    Planted("unlisted-picture", "note", _unlisted),
)


def plant_all(source: Path, root: Path) -> dict[str, list[Any]]:
    """Write the set with all faults into `root`; returns what must be found, by code."""
    small = SmallSet(source, root)
    expected = {planted.code: planted.plant(small) for planted in PLANTED}
    expected["category-id-gap"] = ["ids 0 to"]  # of all that were added
    small.write()
    return expected


if __name__ == "__main__":
    plant_all(Path(sys.argv[1]), Path(sys.argv[2]))
