"""From the rows of a COCO JSON to arrays; what cannot be used is noted row by row.

I pictures, A annotations, K classes.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detkit.coco_json import parse_annotations
from detkit.data.check import Faults
from detkit.data.parse_boxes import check_boxes, read_boxes, refuse_other_formats
from detkit.data.parse_values import Files, is_int, is_text, kind, lookup, note, repeats, whole_numbers

NEEDED = ("images", "annotations", "categories")
SEPARATORS = frozenset("/\\:\0")  # a name without them stays in its folder


@dataclass(frozen=True)
class Categories:
    """The classes in label order, their category ids, and the label of each category id of the file."""

    classes: tuple[str, ...]
    ids: tuple[int | None, ...]
    labels: dict[int, int]
    unknown: dict[int, str]  # categories of the file which are not among the given classes


@dataclass(frozen=True)
class Images:
    """The usable pictures."""

    ids: NDArray[np.int64]  # (I,)
    heights: NDArray[np.int32]  # (I,)
    widths: NDArray[np.int32]  # (I,)
    names: list[str]
    bad_ids: frozenset[int]  # pictures noted as faults; their annotations go without further mention


@dataclass(frozen=True)
class Rows:
    """The usable annotations."""

    places: NDArray[np.int64]  # (A,) the picture's place in Images
    boxes: NDArray[np.float32]  # (A, 4) x1, y1, x2, y2 px, clipped
    labels: NDArray[np.int64]  # (A,)
    crowd: NDArray[np.bool_]  # (A,)
    ids: NDArray[np.int64]  # (A,)
    areas: NDArray[np.float64]  # (A,) px, as the file says; of the box where it does not
    clipped: int


def read_json(path: Path, parse: Callable[[bytes], Any] = parse_annotations) -> dict[str, Any]:
    """The content of an annotation file; raises ValueError unless the three lists of a COCO file are there.

    `parse`: json.loads keeps the keys that detection does not read, too.
    """
    try:
        content = parse(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"there is no annotation file {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read the annotation file {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is broken JSON: {error}; is it a complete COCO annotation file?") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object with the lists {', '.join(NEEDED)}, got {kind(content)}")
    for key in NEEDED:
        if key not in content:
            there = ", ".join(list(content)[:8]) or "nothing"
            raise ValueError(f"{path}: the key '{key}' is missing (there: {there}); a COCO file for detection has it")
        if not isinstance(content[key], list):
            raise ValueError(f"{path}: '{key}' must be a list, not {kind(content[key])}")
    return content


def read_categories(path: Path, rows: list[Any], classes: Sequence[str] | None) -> Categories:
    """Match the file's categories with `classes` by name. Every fault of a category stops, whatever on_bad says."""
    found: dict[int, str] = {}
    for place, row in enumerate(rows):
        identity, name = (row.get("id"), row.get("name")) if isinstance(row, dict) else (None, None)
        if not is_int(identity) or not is_text(name) or not name:
            raise ValueError(
                f"{path}: category {place} of the list needs a whole number 'id' and a 'name', got {row!r}"
            )
        if identity in found:
            raise ValueError(f"{path}: the category id {identity} occurs twice: '{found[identity]}' and '{name}'")
        if name in found.values():
            raise ValueError(f"{path}: the category name '{name}' occurs twice; rename or remove one of the two")
        found[identity] = name
    if not found:
        raise ValueError(f"{path} has no categories: the data set is empty")
    if classes is None:
        classes = [found[identity] for identity in sorted(found)]
    by_name = {name: identity for identity, name in found.items()}
    labels = {by_name[name]: label for label, name in enumerate(classes) if name in by_name}
    unknown = {identity: name for identity, name in found.items() if identity not in labels}
    return Categories(tuple(classes), tuple(by_name.get(name) for name in classes), labels, unknown)


def read_images(path: Path, rows: list[Any], folder: Path, faults: Faults) -> Images:
    """Check each row of 'images' and that its file is there. Repeated ids stop: annotations would be ambiguous."""
    good: dict[int, tuple[int, int, str]] = {}
    bad: set[int] = set()
    files = Files(folder)
    for place, row in enumerate(rows):
        identity = row.get("id") if isinstance(row, dict) else None
        if not is_int(identity):
            faults.add("image", f"{place} of the list", f"needs a whole number 'id', got {row!r:.80}")
            continue
        if identity in good or identity in bad:
            raise ValueError(f"{path}: the image id {identity} occurs twice; ids must be unique")
        fault = _image_fault(row, files)
        if fault:
            faults.add("image", identity, fault)
            bad.add(identity)
        else:
            good[identity] = (row["height"], row["width"], row["file_name"])
    return Images(
        ids=np.array(list(good), np.int64),
        heights=np.array([height for height, _, _ in good.values()], np.int32),
        widths=np.array([width for _, width, _ in good.values()], np.int32),
        names=[name for _, _, name in good.values()],
        bad_ids=frozenset(bad),
    )


def _image_fault(row: dict[str, Any], files: Files) -> str:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        return f"needs a 'file_name', got {name!r}"
    if not is_text(name):
        return f"the file name {name!r} is no valid text"
    for key in ("height", "width"):
        if not is_int(row.get(key)) or not 0 < row[key] < 2**31:
            return f"'{key}' must be a whole number above 0, got {row.get(key)!r}"
    if leaves_folder(name):
        return f"the file name '{name}' leaves the picture folder {files.folder}"
    if name not in files:
        return f"there is no picture {files.folder / name}"
    return ""


def leaves_folder(name: str) -> bool:
    """Whether a relative name points out of its folder; by the name alone, so links of the user's own are fine."""
    if not SEPARATORS & set(name):
        return name == ".."
    absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or PureWindowsPath(name).drive
    normal = os.path.normpath(name.replace("\\", "/"))
    return bool(absolute) or normal == ".." or normal.startswith("../") or "\0" in name


def read_rows(
    path: Path, rows: list[Any], images: Images, other_ids: list[Any], categories: Categories, faults: Faults
) -> Rows:
    """Check the annotations of `images`; those of `other_ids`, pictures beyond the limit, are left out."""
    named = [row if isinstance(row, dict) else {} for row in rows]
    ids, good = whole_numbers([row.get("id") for row in named])
    faults.extend(
        "annotation",
        ((f"{i} of the list", f"needs a whole number 'id', got {rows[i]!r:.80}") for i in np.flatnonzero(~good)),
    )
    good &= note(faults, ids, good & repeats(ids, good), lambda i: "the annotation id occurs twice")
    places, keep = _find_images(named, ids, good, images, other_ids, faults)
    labels, keep = _find_labels(path, named, ids, keep, categories, faults)
    crowd, flag_good = whole_numbers([row.get("iscrowd", 0) for row in named])
    flag_good &= (crowd == 0) | (crowd == 1)
    keep &= note(faults, ids, keep & ~flag_good, lambda i: f"iscrowd must be 0 or 1, got {named[i]['iscrowd']!r}")
    kept = np.flatnonzero(keep)
    problems: dict[int, str] = {}
    raw = read_boxes([named[i].get("bbox") for i in kept], problems)
    heights, widths = images.heights[places[kept]], images.widths[places[kept]]
    refuse_other_formats(path, raw, heights, widths, ids[kept], problems)
    boxes, clipped = check_boxes(raw, heights, widths, problems)
    for place in sorted(problems):
        faults.add("annotation", ids[kept[place]], problems[place])
    usable = np.ones(len(kept), bool)
    usable[list(problems)] = False
    kept = kept[usable]
    overhanging = int((clipped & usable).sum())
    areas = _areas([named[i].get("area") for i in kept], raw[usable])
    return Rows(places[kept], boxes[usable], labels[kept], crowd[kept] == 1, ids[kept], areas, overhanging)


def _areas(values: list[Any], raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """The areas of the file, which are of the mask where there is one; width times height where one is missing."""
    given = np.array([v if type(v) in (int, float) and 0 <= v < 1e18 else np.nan for v in values], np.float64)
    return np.where(np.isnan(given), raw[:, 2] * raw[:, 3], given)


def _find_images(
    rows: list[dict[str, Any]],
    ids: NDArray[np.int64],
    good: NDArray[np.bool_],
    images: Images,
    other_ids: list[Any],
    faults: Faults,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The place of each row's picture, and which rows have one."""
    image_ids, whole = whole_numbers([row.get("image_id") for row in rows])
    order = np.argsort(images.ids)
    places, known = lookup(image_ids, images.ids[order], order)
    known &= whole
    silent = np.array([*images.bad_ids, *(i for i in other_ids if is_int(i))], np.int64)
    unknown = good & ~known & ~(whole & np.isin(image_ids, silent))
    note(faults, ids, unknown, lambda i: f"its image_id {rows[i].get('image_id')!r} is not among the images")
    return places, good & known


def _find_labels(
    path: Path,
    rows: list[dict[str, Any]],
    ids: NDArray[np.int64],
    keep: NDArray[np.bool_],
    categories: Categories,
    faults: Faults,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The label of each row, and which of the rows to `keep` have one."""
    category_ids, whole = whole_numbers([row.get("category_id") for row in rows])
    foreign = sorted({int(i) for i in np.unique(category_ids[keep & whole])} & set(categories.unknown))
    if foreign:
        names = ", ".join(f"'{categories.unknown[i]}'" for i in foreign[:8])
        raise ValueError(
            f"{path} has annotations of {names}, which are not among the classes {', '.join(categories.classes)}"
        )
    keys = np.array(sorted(categories.labels), np.int64)
    values = np.array([categories.labels[int(key)] for key in keys], np.int64)
    labels, known = lookup(category_ids, keys, values)
    known &= whole
    note(
        faults, ids, keep & ~known, lambda i: f"its category_id {rows[i].get('category_id')!r} is not in the categories"
    )
    return labels, keep & known
