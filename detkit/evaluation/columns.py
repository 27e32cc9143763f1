"""Ground truth and detections as columns, checked: what both backends of `coco` are fed with.

N: annotations or detections. Boxes are COCO's here: (x, y, width, height) in pixels of the original picture.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detkit.coco_json import parse_annotations, parse_detections

Json = dict[str, Any]

_TABLES = ("images", "annotations", "categories")
_OPTIONAL = ("file_name", "height", "width")


@dataclass(frozen=True)
class GroundTruth:
    """Annotations as COCO's evaluation sees them; categories in the order of their ids."""

    images: list[Json]  # id, file_name, height, width, the last three where known
    categories: list[Json]  # id, name
    annotation_ids: NDArray[np.int64]  # (N,) as in the file; for messages
    image_ids: NDArray[np.int64]  # (N,)
    category_ids: NDArray[np.int64]  # (N,)
    boxes: NDArray[np.float64]  # (N, 4)
    areas: NDArray[np.float64]  # (N,) of the mask where the file says so, else of the box
    crowd: NDArray[np.bool_]  # (N,)

    def select(self, keep: NDArray[np.bool_]) -> "GroundTruth":
        """The same pictures and categories with the annotations chosen by the mask `keep` (N,)."""
        return GroundTruth(
            self.images,
            self.categories,
            self.annotation_ids[keep],
            self.image_ids[keep],
            self.category_ids[keep],
            self.boxes[keep],
            self.areas[keep],
            self.crowd[keep],
        )

    def only_images(self, image_ids: Sequence[int]) -> "GroundTruth":
        """The given pictures and their annotations; ValueError for ids that are not there."""
        refuse_unknown(image_ids, [image["id"] for image in self.images], "image ids not in the ground truth")
        wanted = set(image_ids)
        part = self.select(np.isin(self.image_ids, list(wanted)))
        return replace(part, images=[image for image in self.images if image["id"] in wanted])

    def clipped(self) -> "GroundTruth":
        """Boxes cut at the edges of their pictures, where the sizes are known; areas as they were."""
        sizes = {i["id"]: (i.get("width", np.inf), i.get("height", np.inf)) for i in self.images}
        limit = np.asarray([sizes[i] for i in self.image_ids.tolist()], dtype=np.float64).reshape(-1, 2)
        start = np.clip(self.boxes[:, :2], 0, limit)
        end = np.clip(self.boxes[:, :2] + self.boxes[:, 2:], 0, limit)
        return replace(self, boxes=np.concatenate([start, end - start], axis=1))


@dataclass(frozen=True)
class DetectionColumns:
    """Detections of many pictures."""

    image_ids: NDArray[np.int64]  # (N,)
    category_ids: NDArray[np.int64]  # (N,)
    boxes: NDArray[np.float64]  # (N, 4)
    scores: NDArray[np.float64]  # (N,)

    def select(self, keep: NDArray[np.bool_]) -> "DetectionColumns":
        """The detections chosen by the mask `keep` (N,)."""
        return DetectionColumns(self.image_ids[keep], self.category_ids[keep], self.boxes[keep], self.scores[keep])


def read_ground_truth(source: Path | Json) -> GroundTruth:
    """Columns of COCO annotations, given as a file or as its content.

    `area` defaults to that of the box and `iscrowd` to 0. The source is not changed.
    Raises ValueError for annotations that cannot be scored, naming the file and the annotation.
    """
    where = "ground truth" if isinstance(source, dict) else str(source)
    content = source if isinstance(source, dict) else read_json(Path(source), parse_annotations)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _TABLES):
        raise ValueError(f"{where}: expected COCO annotations, a JSON object with the lists {', '.join(_TABLES)}")
    try:
        images = [{"id": i["id"], **{key: i[key] for key in _OPTIONAL if key in i}} for i in content["images"]]
        categories = [{"id": c["id"], "name": str(c["name"])} for c in content["categories"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{where}: each image needs an id, each category an id and a name; missing: {error}"
        ) from error
    truth = _columns(images, sorted(categories, key=lambda c: c["id"]), content["annotations"], where)
    refuse_unknown(truth.image_ids, [i["id"] for i in images], f"{where}: annotations of unknown image ids")
    refuse_unknown(truth.category_ids, [c["id"] for c in categories], f"{where}: annotations of unknown category ids")
    return truth


def refuse_unknown(ids: Sequence[int] | NDArray[np.int64], known: Iterable[int], message: str) -> None:
    """ValueError with `message` and the first of those ids that are not among `known`."""
    unknown = np.setdiff1d(np.asarray(ids, dtype=np.int64), np.asarray(list(known), dtype=np.int64)).tolist()
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ValueError(f"{message}: {', '.join(map(str, unknown[:5]))}{more}")


def read_json(path: Path, parse: Callable[[bytes], Any]) -> Any:
    """Content of a JSON file; ValueError, naming it, when it is missing or broken."""
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from error


def read_detections(source: Sequence[Json] | Path, truth: GroundTruth, all_images: Iterable[int]) -> DetectionColumns:
    """Columns of detections in COCO's result format (rows, or a file of them), for the pictures of `truth`.

    Rows of other pictures among `all_images` are left out. Raises ValueError for unknown image or category
    ids and for boxes or scores that are no finite numbers.
    """
    where = str(source) if isinstance(source, (str, Path)) else "detections"
    rows = read_json(Path(source), parse_detections) if isinstance(source, (str, Path)) else source
    if isinstance(rows, dict):
        raise ValueError(f"{where}: expected COCO results, a list of rows, got a JSON object")
    image_ids, category_ids = (_ids(rows, key, where) for key in ("image_id", "category_id"))
    boxes, scores = _boxes(rows, where), _floats(rows, "score", where)
    refuse_unknown(image_ids, all_images, f"{where}: image ids that the ground truth does not have")
    known = [category["id"] for category in truth.categories]
    refuse_unknown(category_ids, known, f"{where}: category ids that the ground truth does not have")
    keep = np.isin(image_ids, [image["id"] for image in truth.images])
    return DetectionColumns(image_ids[keep], category_ids[keep], boxes[keep], scores[keep])


def _columns(images: list[Json], categories: list[Json], annotations: Sequence[Json], where: str) -> GroundTruth:
    boxes = _boxes(annotations, where)
    areas = [a.get("area") for a in annotations]
    filled = [box[2] * box[3] if area is None else area for area, box in zip(areas, boxes, strict=True)]
    crowd = [bool(a.get("iscrowd", 0)) for a in annotations]
    return GroundTruth(
        images,
        categories,
        _ids(annotations, "id", where),
        _ids(annotations, "image_id", where),
        _ids(annotations, "category_id", where),
        boxes,
        np.asarray(filled, dtype=np.float64),
        np.asarray(crowd, dtype=bool),
    )


def _ids(rows: Sequence[Json], key: str, where: str) -> NDArray[np.int64]:
    values = _column(rows, key, where)
    bad = [value for value in values if not isinstance(value, (int, np.integer))]
    if bad:
        raise ValueError(f"{where}: {key} must be a whole number, got {bad[0]!r}")
    return np.asarray(values, dtype=np.int64)


def _floats(rows: Sequence[Json], key: str, where: str) -> NDArray[np.float64]:
    values = _column(rows, key, where)
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {key} must be a number: {error}") from error
    if not np.isfinite(column).all():
        raise ValueError(f"{where}, row {_first(~np.isfinite(column))}: {key} is not finite")
    return column


def _boxes(rows: Sequence[Json], where: str) -> NDArray[np.float64]:
    values = _column(rows, "bbox", where)
    try:
        boxes = np.asarray(values, dtype=np.float64).reshape(len(values), 4)
    except (TypeError, ValueError):
        bad = next((i for i, box in enumerate(values) if not _is_box(box)), 0)
        raise ValueError(f"{where}: bbox must be 4 numbers, got {values[bad]!r} in {_name(rows, bad)}") from None
    wrong = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= 0).all(axis=1))
    if wrong.any():
        at = _first(wrong)
        text = "must be finite with width and height not below 0"
        raise ValueError(f"{where}: bbox {text}, got {values[at]} in {_name(rows, at)}")
    return boxes


def _is_box(value: Any) -> bool:
    try:
        return np.asarray(value, dtype=np.float64).shape == (4,)
    except (TypeError, ValueError):
        return False


def _column(rows: Sequence[Json], key: str, where: str) -> list[Any]:
    try:
        return [row[key] for row in rows]
    except (KeyError, TypeError, IndexError):
        at = next(i for i, row in enumerate(rows) if not isinstance(row, dict) or key not in row)
        raise ValueError(f"{where}: {key} is missing in {_name(rows, at)}") from None


def _name(rows: Sequence[Json], at: int) -> str:
    row = rows[at]
    return f"annotation {row['id']}" if isinstance(row, dict) and "id" in row else f"row {at}"


def _first(mask: np.bool_ | NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(mask)[0])
