"""A data set in another format, with its pictures; what the format cannot hold is counted.

detkit's own layouts: COCO annotations/instances_NAME.json and NAME/; VOC Annotations/, JPEGImages/, ImageSets/Main/
and labels.txt; YOLO data.yaml, labels/NAME/ and images/NAME/.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

from detkit.files import write_atomically, write_json
from detkit.formats.split import Kind, Split
from detkit.formats.voc import ATTRIBUTES, voc_xml
from detkit.formats.yolo import yolo_lines

Pictures = Literal["copy", "link", "none"]
COMMON = {"id", "image_id", "category_id", "bbox", "area", "iscrowd"}
VOC_ONLY = {*ATTRIBUTES, "parts"}


def write_dataset(
    splits: Sequence[Split],
    kind: Kind,
    output: Path,
    pictures: Pictures = "copy",
    progress: Callable[[], None] | None = None,
) -> list[str]:
    """Write splits of usable rows into the folder `output`, which must not be there yet; says what was lost.

    `pictures`: copied, linked to (symbolic links), or left where they are. `progress` is called for each picture.
    Raises ValueError, before anything is written, where names clash or the folder is there.
    """
    splits = splits if kind == "coco" else _usual_names(splits)
    names = category_names(splits)
    folders = {split.source.name: _picture_folder(split, kind, output) for split in splits}
    if kind != "coco":
        _refuse_clashes(splits, folders)
    if output.exists():
        raise ValueError(f"{output} exists already and is not overwritten: give another name or remove it")
    output.mkdir(parents=True)
    for split in splits:
        if kind == "coco":
            write_json(_made(output / "annotations" / f"instances_{split.source.name}.json"), split.content)
        elif kind == "voc":
            _write_voc(split, output)
        else:
            _write_yolo(split, output, names)
        for row in split.content["images"]:
            _place(split.source.images / row["file_name"], folders[split.source.name] / row["file_name"], pictures)
            if progress is not None:
                progress()
    if kind == "voc":
        write_atomically(output / "labels.txt", "".join(f"{name}\n" for name in names))
    if kind == "yolo":
        described: dict[str, Any] = {split.source.name: f"images/{split.source.name}" for split in splits}
        described |= {"nc": len(names), "names": dict(enumerate(names))}
        write_atomically(output / "data.yaml", yaml.safe_dump(described, sort_keys=False, allow_unicode=True))
    return losses(splits, kind)


def _usual_names(splits: Sequence[Split]) -> list[Split]:
    """The splits called train, val and test, as VOC and YOLO know no others: train2017 is train, a single one too.

    Raises ValueError where two would have one name, or a name says nothing.
    """
    names = [next((u for u in ("train", "val", "test") if split.source.name.startswith(u)), "") for split in splits]
    if len(names) == 1:
        names = [names[0] or "train"]
    if "" in names or len(set(names)) < len(names):
        told = ", ".join(split.source.name for split in splits)
        raise ValueError(f"expected splits whose names start with train, val or test, one of each, got {told}")
    named = zip(splits, names, strict=True)
    return [replace(split, source=replace(split.source, name=name)) for split, name in named]


def category_names(splits: Sequence[Split]) -> list[str]:
    """The names of all splits in the order of their ids, training's first. Raises ValueError for odd names."""
    names: dict[str, None] = {}
    for split in splits:
        names |= dict.fromkeys(row["name"] for row in sorted(split.content["categories"], key=lambda row: row["id"]))
    odd = [name for name in names if name != name.strip() or "\n" in name]
    if odd:
        raise ValueError(f"the category name {odd[0]!r} starts or ends with a blank or has a line break: rename it")
    return list(names)


def losses(splits: Sequence[Split], kind: Kind) -> list[str]:
    """What the format cannot hold, a line for each kind of thing."""
    lost: Counter[str] = Counter()
    for split in splits:
        for row in split.content["annotations"] if kind != "coco" else ():
            lost["polygons or masks (segmentation)"] += bool(row.get("segmentation"))
            lost["areas that are not width times height"] += not _plain_area(row)
            if kind == "yolo":
                lost["crowd regions, left out: they would count as objects"] += row.get("iscrowd", 0)
                lost["poses, truncations, parts and the like"] += bool(VOC_ONLY & row.keys())
            for key in row.keys() - COMMON - VOC_ONLY - {"segmentation"}:
                lost[f"values of the key {key!r}"] += 1
    found = [f"{count} {what}" for what, count in lost.items() if count]
    return found + (["the ids of pictures, boxes and categories, which are numbered anew"] if kind != "coco" else [])


def _plain_area(row: dict[str, Any]) -> bool:
    area = row["bbox"][2] * row["bbox"][3]
    return abs(row.get("area", area) - area) <= 1e-3 * max(area, 1)


def _picture_folder(split: Split, kind: Kind, output: Path) -> Path:
    if kind == "voc":
        return output / "JPEGImages"
    return output / split.source.name if kind == "coco" else output / "images" / split.source.name


def _refuse_clashes(splits: Sequence[Split], folders: dict[str, Path]) -> None:
    """VOC and YOLO go by the picture's name without its ending; VOC's XML files are all in one folder."""
    seen: dict[str, str] = {}
    for split in splits:
        for row in split.content["images"]:
            path = folders[split.source.name] / row["file_name"]
            stem = str(path.with_suffix("")) if path.parts[-2:-1] != ("JPEGImages",) else path.stem
            if stem in seen:
                raise ValueError(
                    f"{seen[stem]} and {row['file_name']} would have one annotation file: rename one of them"
                )
            seen[stem] = row["file_name"]


def _grouped(split: Split) -> dict[int, list[dict[str, Any]]]:
    rows: dict[int, list[dict[str, Any]]] = {row["id"]: [] for row in split.content["images"]}
    for row in split.content["annotations"]:
        rows[row["image_id"]].append(row)
    return rows


def _write_voc(split: Split, output: Path) -> None:
    names, rows = {row["id"]: row["name"] for row in split.content["categories"]}, _grouped(split)
    members = []
    for image in split.content["images"]:
        stem = PurePosixPath(image["file_name"]).stem
        members.append(stem)
        text = voc_xml(image, rows[image["id"]], names)
        write_atomically(_made(output / "Annotations" / f"{stem}.xml"), text)
    text = "".join(f"{stem}\n" for stem in members)
    write_atomically(_made(output / "ImageSets" / "Main" / f"{split.source.name}.txt"), text)


def _write_yolo(split: Split, output: Path, names: Sequence[str]) -> None:
    numbers = {row["id"]: names.index(row["name"]) for row in split.content["categories"]}
    rows = _grouped(split)
    for image in split.content["images"]:
        objects = [row for row in rows[image["id"]] if not row.get("iscrowd")]
        path = (output / "labels" / split.source.name / image["file_name"]).with_suffix(".txt")
        write_atomically(_made(path), yolo_lines(image, objects, numbers))


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _place(source: Path, target: Path, pictures: Pictures) -> None:
    if pictures == "copy":
        shutil.copyfile(source, _made(target))
    elif pictures == "link":
        _made(target).symlink_to(source.resolve())
