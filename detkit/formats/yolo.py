"""YOLO: data.yaml, and for each picture a text file of lines `class x y width height`, centres, in parts of its size.

hotcoco's `from_yolo` reads such files from one flat folder, but stops at the first broken line, follows no paths of
data.yaml and knows no polygons. Hence this reader.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from detkit.data.pictures import SUFFIXES
from detkit.formats.sizes import picture_size
from detkit.formats.split import Origin, Source, Split

MOST_CLASSES = 100_000
DATA_FILES = ("data.yaml", "data.yml", "dataset.yaml")


def yolo_sources(path: Path) -> list[Source]:
    """The splits that a data.yaml names. Raises ValueError where it is broken or names no folder that is there."""
    described = _read_yaml(path)
    base = path.parent / str(described.get("path") or "")
    sources: list[Source] = []
    for name in ("train", "val", "test"):
        places = described.get(name)
        for place in places if isinstance(places, list) else [places]:
            images = None if not isinstance(place, str) else _folder(path.parent, base, place)
            # exports often name other splits that they do not have
            if images is None and isinstance(place, str) and name == "train":
                raise ValueError(f"{path}: {name} names {place!r}, and there is no such folder")
            if images is not None:
                sources.append(Source(_distinct(name, sources), "yolo", path, images, _labels_of(images)))
    if not sources:
        raise ValueError(f"{path}: none of the folders that train, val and test name is there")
    return sources


def _distinct(name: str, sources: list[Source]) -> str:
    """A second folder of a split is train-2."""
    taken = sum(source.name.split("-")[0] == name for source in sources)
    return f"{name}-{taken + 1}" if taken else name


def _folder(root: Path, base: Path, place: str) -> Path | None:
    """Exports of Roboflow say ../train/images where they mean train/images."""
    candidates = [base / place, root / place, root / place.removeprefix("../"), root / "images" / place]
    return next((Path(os.path.normpath(folder)) for folder in candidates if folder.is_dir()), None)


def _labels_of(images: Path) -> Path:
    """The last `images` of the path becomes `labels`; without one the label files lie beside the pictures."""
    parts = list(images.parts)
    if "images" not in parts:
        return images
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is broken YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(described, dict):
        raise ValueError(f"{path}: expected keys such as train, val and names, got {type(described).__name__}")
    return described


def read_yolo(source: Source) -> Split:
    """The pictures of a folder, with the boxes of their label files; those without a label file show no object.

    A class c has the category id c + 1. A polygon becomes its box, and stays as the row's `segmentation`.
    """
    assert source.labels is not None
    names, faults = _names(source.annotations)
    images: list[Any] = []
    annotations: list[Any] = []
    origins: dict[str, list[Origin]] = {"images": [], "annotations": []}
    pictures = sorted(path for path in source.images.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    expected = set()
    for picture in pictures:
        name = picture.relative_to(source.images).as_posix()
        size = picture_size(picture)
        images.append({"id": len(images) + 1, "file_name": name, "height": size and size[0], "width": size and size[1]})
        label_file = (source.labels / name).with_suffix(".txt")
        expected.add(label_file)
        labelled = label_file.is_file()
        origins["images"].append(Origin(label_file if labelled else picture))
        if size is None or not labelled:
            continue
        for origin, row in _rows(label_file, size, faults):
            origins["annotations"].append(origin)
            annotations.append({"id": len(annotations) + 1, "image_id": len(images), "iscrowd": 0} | row)
    if source.labels.is_dir():
        lonely = sorted(path for path in set(source.labels.rglob("*.txt")) - expected if path.is_file())
        faults += [(Origin(p), f"there is no picture of this name in {source.images}") for p in lonely if _has_boxes(p)]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return Split(source, {"images": images, "annotations": annotations, "categories": categories}, faults, origins)


def _names(path: Path) -> tuple[list[str], list[tuple[Origin, str]]]:
    """The class names in order, from a list or from a table of numbers."""
    names = _read_yaml(path).get("names")
    table = dict(enumerate(names)) if isinstance(names, list) else names
    if isinstance(table, dict) and table and all(_is_class(number, name) for number, name in table.items()):
        return [str(table.get(number, f"class {number}")) for number in range(max(table) + 1)], []
    return [], [(Origin(path), "expected `names`, a list of the classes' names or a table from their numbers")]


def _is_class(number: Any, name: Any) -> bool:
    """Names such as 7 and no are a number and a truth value in YAML; lists of lists can stand for gigabytes."""
    return type(number) is int and 0 <= number < MOST_CLASSES and isinstance(name, str | int | float)


def _has_boxes(path: Path) -> bool:
    """Whether a text file holds label lines; classes.txt and notes do not."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return any(_values(line) is not None for line in text.splitlines() if line.strip())


def _values(line: str) -> list[float] | None:
    """The numbers of a label line, None unless they are a class and a box or a polygon."""
    try:
        values = [float(part) for part in line.split()]
    except ValueError:
        return None
    whole = values and math.isfinite(values[0]) and values[0].is_integer()
    return values if whole and (len(values) == 5 or (len(values) >= 7 and len(values) % 2 == 1)) else None


def _rows(
    path: Path, size: tuple[int, int], faults: list[tuple[Origin, str]]
) -> Iterator[tuple[Origin, dict[str, Any]]]:
    """The boxes of a label file, each with its line."""
    height, width = size
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        values = _values(line)
        if values is None:
            reason = f"expected `class x y width height` or a polygon, got {line[:60]!r}"
            faults.append((Origin(path, number), reason))
            continue
        row: dict[str, Any] = {"category_id": int(values[0]) + 1}
        if len(values) == 5:
            x, y, w, h = values[1] * width, values[2] * height, values[3] * width, values[4] * height
            box = [x - w / 2, y - h / 2, w, h]
        else:
            xs, ys = [x * width for x in values[1::2]], [y * height for y in values[2::2]]
            box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            row["segmentation"] = [[round(v, 6) for pair in zip(xs, ys, strict=True) for v in pair]]
        box = [round(value, 4) for value in box]  # a ten-thousandth of a pixel: files have six digits
        yield Origin(path, number), row | {"bbox": box, "area": round(box[2] * box[3], 4)}


def yolo_lines(image: dict[str, Any], annotations: list[dict[str, Any]], numbers: dict[int, int]) -> str:
    """The label file of a picture; `numbers` gives the class of each category id."""
    height, width = image["height"], image["width"]
    lines = []
    for row in annotations:
        x, y, w, h = row["bbox"]
        parts = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
        lines.append(" ".join([str(numbers[row["category_id"]]), *(f"{part:.9f}" for part in parts)]))
    return "".join(f"{line}\n" for line in lines)
