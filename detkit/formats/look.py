"""Which format a data set has, and where its splits lie: by looking."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from detkit.data.layout import ROBOFLOW, find_images
from detkit.formats.split import Source
from detkit.formats.yolo import DATA_FILES, yolo_sources

LOOKED_FOR = """looked for, in this order:
  annotations/instances_*.json                                  (COCO)
  train/_annotations.coco.json, and in valid/, val/, test/      (Roboflow's COCO export)
  Annotations/*.xml with JPEGImages/ or images/                 (Pascal VOC)
  train/*.xml beside the pictures, and in valid/, val/, test/   (Roboflow's VOC export)
  data.yaml with images/ and labels/                            (YOLO)
or the path of a COCO JSON file"""
SPLIT = re.compile(r"(?:^|[^a-z])((?:train|val|test).*)", re.IGNORECASE)  # in fixed_train: train
FOLDERS = {"train": "train", "valid": "val", "val": "val", "test": "test"}


def find_sources(path: Path, images: Path | None = None) -> list[Source]:
    """The splits of the data set at `path`, a folder or a COCO JSON file; training first.

    `images`: the folder of the pictures, where it cannot be found by looking. Raises ValueError where there is nothing
    that looks like a data set.
    """
    if path.is_file() and path.suffix.lower() == ".json":
        return [_coco_file(path, images)]
    if path.is_file() and path.name in DATA_FILES:
        return yolo_sources(path)
    if not path.is_dir():
        raise ValueError(
            f"{path}: expected a folder or a COCO JSON file, found {'a file' if path.exists() else 'none'}"
        )
    for find in (_coco, _roboflow, _voc, _roboflow_voc, _yolo):
        found = list(find(path))
        if found:
            sources = found if images is None else [replace(source, images=images) for source in found]
            return sorted(sources, key=lambda source: (not source.is_train, source.name))
    there = ", ".join(sorted(entry.name for entry in path.iterdir())[:12]) or "nothing"
    raise ValueError(f"{path}: no data set found; {LOOKED_FOR}\nthere: {there}")


def find_splits(paths: Sequence[Path], images: Sequence[Path | None]) -> list[Source]:
    """The splits of one data set that lies in several files or folders, each with its folder of pictures, if given.

    Where no name says which of them is for training, the first is. Raises ValueError where two have one name.
    """
    found = [source for path, folder in zip(paths, images, strict=True) for source in find_sources(path, folder)]
    if len(paths) == 1:
        return found
    if not any(source.is_train for source in found):
        found[0] = replace(found[0], name="train")
    where: dict[str, Path] = {}
    for source in found:
        if source.name in where:
            both = f"{where[source.name]} and {source.annotations}"
            raise ValueError(f"{both} are both of the split {source.name}: their names should say train, val or test")
        where[source.name] = source.annotations
    return sorted(found, key=lambda source: not source.is_train)


def _coco_file(path: Path, images: Path | None) -> Source:
    if images is not None:
        return Source(_split_name(path), "coco", path, images)
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    name = _split_name(path)
    if path.name == ROBOFLOW:
        return Source(FOLDERS.get(path.parent.name, path.parent.name), "coco", path, path.parent)
    try:
        return Source(name, "coco", path, find_images(root, name, path))
    except ValueError:
        raise ValueError(f"{path}: found no folder of its pictures; name it with --images FOLDER") from None


def _split_name(path: Path) -> str:
    said = SPLIT.search(path.stem)
    return said[1] if said else path.stem.removeprefix("instances_")


def _coco(root: Path) -> Iterator[Source]:
    for path in sorted(root.glob("annotations/instances_*.json")):
        name = _split_name(path)
        yield Source(name, "coco", path, find_images(root, re.sub(r"\d.*", "", name), path))


def _roboflow(root: Path) -> Iterator[Source]:
    for folder, name in FOLDERS.items():
        if (path := root / folder / ROBOFLOW).is_file():
            yield Source(name, "coco", path, path.parent)
    if (path := root / ROBOFLOW).is_file():
        yield Source("train", "coco", path, root)


def _voc(root: Path) -> Iterator[Source]:
    """ImageSets/Main/*.txt say which pictures are of which split; without them all are of one."""
    folder = root / "Annotations"
    if not folder.is_dir() or not any(folder.glob("*.xml")):
        return
    pictures = next((root / name for name in ("JPEGImages", "images") if (root / name).is_dir()), root)
    lists = {name: root / "ImageSets" / "Main" / f"{name}.txt" for name in ("train", "val", "test")}
    if not any(path.is_file() for path in lists.values()):
        yield Source("train", "voc", folder, pictures)
    for name, path in lists.items():
        if path.is_file():
            rows = path.read_text(encoding="utf-8", errors="replace").splitlines()
            yield Source(name, "voc", folder, pictures, members=tuple(row.split()[0] for row in rows if row.strip()))


def _roboflow_voc(root: Path) -> Iterator[Source]:
    for folder, name in FOLDERS.items():
        if any((root / folder).glob("*.xml")):
            yield Source(name, "voc", root / folder, root / folder)


def _yolo(root: Path) -> Iterator[Source]:
    for name in DATA_FILES:
        if (root / name).is_file():
            yield from yolo_sources(root / name)
            return
