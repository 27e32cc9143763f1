"""Where a data set keeps its annotations and pictures: three common layouts are recognised by looking."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

ROBOFLOW = "_annotations.coco.json"
LOOKED_FOR = """looked for, in this order:
  annotations/instances_{train,val}2017.json with train2017/ and val2017/   (COCO, any year)
  annotations/instances_{train,val}.json with images/
  train/_annotations.coco.json, and the same in valid/, val/ or test/       (Roboflow's COCO export)"""
KEYS = "data.train_annotations, data.train_images, data.val_annotations and data.val_images name them explicitly"


@dataclass(frozen=True)
class Split:
    """A COCO annotation file and the folder that its file names start from."""

    annotations: Path
    images: Path


def find_layout(
    root: Path,
    train_annotations: str | Path | None = None,
    train_images: str | Path | None = None,
    val_annotations: str | Path | None = None,
    val_images: str | Path | None = None,
) -> tuple[Split, Split]:
    """The training and the validation split of the data set in `root`.

    Paths that are given, absolute or relative to `root`, are taken; the others are found by looking. Raises ValueError
    when a part is missing or when several would do.
    """
    train = find_split(root, "train", train_annotations, train_images)
    return train, find_split(root, "val", val_annotations, val_images)


def find_split(root: Path, name: str, annotations: str | Path | None = None, images: str | Path | None = None) -> Split:
    """One split, `train` or `val`, of the data set in `root`, as `find_layout` finds it."""
    if annotations is not None and images is not None:
        return Split(_explicit_file(root, name, annotations), _explicit_folder(root, name, images))
    if not root.is_dir():
        raise ValueError(f"data.root: there is no folder {root}")
    if annotations is None:
        file = _find_annotations(root, name)
    else:
        file = _explicit_file(root, name, annotations)
    return Split(file, find_images(root, name, file) if images is None else _explicit_folder(root, name, images))


def _explicit_file(root: Path, name: str, annotations: str | Path) -> Path:
    path = root / annotations
    if not path.is_file():
        raise ValueError(f"data.{name}_annotations: there is no file {path}")
    return path


def _explicit_folder(root: Path, name: str, images: str | Path) -> Path:
    path = root / images
    if not path.is_dir():
        raise ValueError(f"data.{name}_images: there is no folder {path}")
    return path


def _find_annotations(root: Path, name: str) -> Path:
    pattern = re.compile(rf"instances_{name}.*\.json")
    folder = root / "annotations"
    found = sorted(p for p in folder.iterdir() if pattern.fullmatch(p.name)) if folder.is_dir() else []
    if not found:
        found = _find_roboflow(root, name)
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(root)) for path in found)
        raise ValueError(f"{root}: several annotation files of the {name} split would do: {names}; {KEYS}")
    if not found:
        raise ValueError(_nothing_found(root, name))
    return found[0]


def _find_roboflow(root: Path, name: str) -> list[Path]:
    """Roboflow's validation folder is valid/; test/ stands in for it where there is neither valid/ nor val/."""
    for folders in (("train",),) if name == "train" else (("valid", "val"), ("test",)):
        found = [path for folder in folders if (path := root / folder / ROBOFLOW).is_file()]
        if found:
            return found
    return []


def find_images(root: Path, name: str, annotations: Path) -> Path:
    """The folder that the file names of an annotation file start from. Raises ValueError where none is there."""
    if annotations.name == ROBOFLOW:
        return annotations.parent
    part = annotations.stem.removeprefix("instances_")
    year = re.match(rf"{name}\d*", part)  # train2017_small is of the pictures in train2017
    parts = dict.fromkeys((part, year[0] if year else part))
    candidates = [*(root / p for p in parts), *(root / "images" / p for p in parts), root / "images"]
    found = [path for path in candidates if path.is_dir()]
    if not found:
        raise ValueError(
            f"{annotations} is there, but the folder of its pictures is not: looked for"
            f" {', '.join(str(path) for path in candidates)}; {KEYS}"
        )
    return found[0]


def _nothing_found(root: Path, name: str) -> str:
    kind = "training" if name == "train" else "validation"
    message = f"{root}: found no annotations of the {kind} split; {LOOKED_FOR}\nthere: {_contents(root)}\n{KEYS}"
    if name == "val" and (root / "train" / ROBOFLOW).is_file():
        message += (
            "\nThis export has a train/ folder but no valid/: split the data set again in Roboflow with a validation"
            " share, or move some pictures and their annotations to valid/"
        )
    return message


def _contents(root: Path, most: int = 12) -> str:
    names = sorted(entry.name + "/" * entry.is_dir() for entry in os.scandir(root))
    folder = root / "annotations"
    if folder.is_dir():
        names += sorted(f"annotations/{path.name}" for path in folder.glob("*.json"))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
