"""Shapes: a small detection data set that detkit draws itself, in COCO's own layout.

Six classes on textured backgrounds, 8 px to nearly the whole picture, rotated, cut by the edge and hidden by each
other; some pictures show nothing. Colours say nothing about the class. A picture depends on (seed, split, number)
only. Outlines are filled on a grid of `GRID` x `GRID` points per pixel: the drawing is anti-aliased, and the boxes
and areas in the annotations are those of what is visible, exact to 1 / GRID px.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from detkit.data.textures import draw_background, draw_fill, pick_colour

CLASSES = ("circle", "square", "triangle", "star", "cross", "ring")
GRID = 4
SIZES = ((96, 128), (108, 144), (120, 160), (144, 192))  # height, width; a quarter of the pictures is turned upright
EMPTY_SHARE = 0.08
MAX_OBJECTS = 7
SMALLEST, LARGEST = 8.0, 0.95  # longer side of an object: in px, and as a share of the picture's shorter side

Outline = list[NDArray[np.float64]]  # closed polygons (P, 2) x, y in px; a point inside an even number is outside


@dataclass(frozen=True)
class _Object:
    label: int
    area: float  # px, of the whole outline, also where it is hidden
    needed: float  # the share of the area that must stay visible


def ensure_shapes(root: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Draw Shapes into the folder `root` unless it is there; returns `root`. Safe for several processes at once.

    `progress` gets (pictures done, of all).

    Raises ValueError when `root` holds something else, or only a part of Shapes, or cannot be written.
    """
    if root.is_dir() and any(root.iterdir()):
        _check_complete(root)
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
            drawn = Path(temporary) / root.name
            draw_shapes(drawn, progress=progress)
            _move(drawn, root)
    except OSError as error:
        raise ValueError(f"cannot draw the Shapes data set into {root}: {error}") from error
    return root


def draw_shapes(
    root: Path,
    train: int = 480,
    val: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw `train` and `val` pictures and their annotations into `root`; `progress` gets (pictures done, of all)."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, name, count, before in ((0, "train2017", train, 0), (1, "val2017", val, train)):
        (root / name).mkdir(exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            picture, rows = draw_picture(np.random.default_rng((seed, split, number)))
            file_name = f"{number + 1:06d}.png"
            if not cv2.imwrite(str(root / name / file_name), picture[..., ::-1]):
                raise OSError(f"cannot write {root / name / file_name}")
            height, width = picture.shape[:2]
            images.append({"id": number + 1, "file_name": file_name, "height": height, "width": width})
            for row in rows:
                annotations.append({"id": len(annotations) + 1, "image_id": number + 1, **row})
            if progress:
                progress(before + number + 1, train + val)
        _write_annotations(root / "annotations" / f"instances_{name}.json", images, annotations, seed)


def draw_picture(rng: Generator) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """One picture (H, W, 3) RGB and its annotations in COCO's words, without ids."""
    height, width = SIZES[rng.integers(len(SIZES))]
    if rng.random() < 0.25:
        height, width = width, height
    picture = draw_background(rng, height, width)
    owner = np.zeros((height * GRID, width * GRID), np.uint8)  # the number of the visible object, 0: background
    objects: list[_Object] = []
    if rng.random() >= EMPTY_SHARE:
        for size in _draw_sizes(rng, min(height, width)):
            _place(rng, size, picture, owner, objects)
    noise = rng.normal(0, rng.uniform(0, 6), picture.shape)
    return np.clip(picture + noise + 0.5, 0, 255).astype(np.uint8), _describe(owner, objects)


def _draw_sizes(rng: Generator, short_side: int) -> list[float]:
    """Longer sides of 1 to 7 objects, log-uniform; large ones tend to come first, so that they lie at the back."""
    count = int(rng.integers(1, MAX_OBJECTS + 1))
    sizes = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST * short_side), count))
    order = np.argsort(-sizes * np.exp(rng.normal(0, 0.4, count)))
    return [float(size) for size in sizes[order]]


def _place(
    rng: Generator, size: float, picture: NDArray[np.float32], owner: NDArray[np.uint8], objects: list[_Object]
) -> None:
    """Draw an object where enough of it and of all earlier ones stays visible; nothing if no such place is found."""
    height, width = picture.shape[:2]
    label = int(rng.integers(len(CLASSES)))
    for _ in range(30):
        centre = rng.uniform((0, 0), (width, height))
        outline = [polygon + centre for polygon in _outline(rng, CLASSES[label], size)]
        mask = np.zeros_like(owner)
        cv2.fillPoly(mask, _grid_points(outline), 1)
        # Small things are recognised by their whole outline, large ones also by a part of it.
        needed = float(np.interp(size, (12, 40), (0.9, 0.4)))
        candidate = _Object(label, _outline_area(outline), needed)
        tried = np.where(mask > 0, np.uint8(len(objects) + 1), owner)
        if _all_visible(tried, [*objects, candidate]):
            owner[:] = tried
            objects.append(candidate)
            alpha = np.asarray(
                cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA), np.float32
            )
            colour = pick_colour(rng, picture, alpha)
            picture += (draw_fill(rng, colour, height, width) - picture) * alpha[..., None]
            return


def _all_visible(owner: NDArray[np.uint8], objects: list[_Object]) -> bool:
    counts = np.bincount(owner.ravel(), minlength=len(objects) + 1)[1:] / GRID**2
    return all(count >= item.needed * item.area for count, item in zip(counts, objects, strict=True))


def _outline(rng: Generator, name: str, size: float) -> Outline:
    """The class's outline, slightly stretched, turned, its longer side `size` px, its centre at (0, 0)."""
    stretch = np.array((rng.uniform(0.87, 1.15), 1.0))
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array(((np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))))
    polygons = [polygon * stretch @ turn for polygon in _unit_outline(name)]
    low, high = polygons[0].min(axis=0), polygons[0].max(axis=0)
    scale = size / (high - low).max()
    return [(polygon - (low + high) / 2) * scale for polygon in polygons]


def _unit_outline(name: str) -> Outline:
    """The class's outline inside the unit circle; the outermost polygon comes first."""
    if name == "circle":
        return [_regular(48)]
    if name == "square":
        return [_regular(4)]
    if name == "triangle":
        return [_regular(3)]
    if name == "star":
        return [_regular(10) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]]
    if name == "ring":
        return [_regular(48), _regular(48) * 0.56]
    a, b = 1.0, 0.34  # half length and half width of the cross's bars
    corners = ((a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b))
    return [np.array((*corners, *((-x, -y) for x, y in corners)))]


def _regular(corners: int) -> NDArray[np.float64]:
    angles = np.arange(corners) * 2 * np.pi / corners
    return np.stack((np.cos(angles), np.sin(angles)), axis=1)


def _outline_area(outline: Outline) -> float:
    areas = [abs(float(np.sum(p[:, 0] * np.roll(p[:, 1], 1) - p[:, 1] * np.roll(p[:, 0], 1)))) / 2 for p in outline]
    return areas[0] - sum(areas[1:])


def _grid_points(outline: Outline) -> list[NDArray[np.int32]]:
    """Pixel coordinates -> grid cells; cell i covers [i, i + 1) / GRID px, so its centre is at i + 0.5."""
    return [np.round(polygon * GRID - 0.5).astype(np.int32) for polygon in outline]


def _describe(owner: NDArray[np.uint8], objects: list[_Object]) -> list[dict[str, Any]]:
    """Annotations of the visible parts: the tight box, and the area in px."""
    rows = []
    for number, item in enumerate(objects, start=1):
        visible = owner == number
        xs, ys = np.flatnonzero(visible.any(axis=0)), np.flatnonzero(visible.any(axis=1))
        box = (xs[0], ys[0], xs[-1] + 1 - xs[0], ys[-1] + 1 - ys[0])
        rows.append(
            {
                "category_id": item.label + 1,
                "bbox": [float(value) / GRID for value in box],
                "area": float(visible.sum()) / GRID**2,
                "iscrowd": 0,
            }
        )
    return rows


def _write_annotations(path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]], seed: int) -> None:
    content = {
        "info": {"description": "Shapes, drawn by detkit", "seed": seed},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)],
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def _move(drawn: Path, root: Path) -> None:
    """Rename the finished folder; when another process was faster, its drawing, which is the same, stays."""
    try:
        drawn.replace(root)
    except OSError:
        if not root.is_dir():
            raise
        _check_complete(root)


def _check_complete(root: Path) -> None:
    for name in ("train2017", "val2017"):
        annotations = root / "annotations" / f"instances_{name}.json"
        if not annotations.is_file() or not (root / name).is_dir():
            raise ValueError(
                f"{root} exists but is no complete Shapes data set ({annotations.relative_to(root)} or {name}/ is"
                " missing); remove the folder to have it drawn again, or set data.root to your own data"
            )
