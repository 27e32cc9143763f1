"""Boxes on pictures: uint8 arrays (H, W, 3), RGB; boxes are (N, 4) x1 y1 x2 y2 in their pixels."""

import colorsys
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, cast

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from detkit.boxes import scale_boxes
from detkit.files import is_disk_full, write_atomically
from detkit.types import Detection, Picture, Target

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
AnyBoxes = Detection | Target

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
GREY: Colour = (200, 200, 200)
RED: Colour = (220, 30, 40)
PAPER: Colour = (247, 247, 245)
INK: Colour = (40, 40, 40)
PENCIL: Colour = (110, 110, 110)


class Mark(NamedTuple):
    """A box to be drawn."""

    box: Box
    colour: Colour
    text: str


def class_colour(label: int) -> Colour:
    """RGB colour of a class: hues a golden ratio apart, so that any first n of them differ well."""
    hue = (0.98 + label * 0.618033988749895) % 1.0
    saturation, value = ((0.85, 0.95), (0.65, 1.0), (0.95, 0.7))[label // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever reads better on the background (by relative luminance, Rec. 709)."""
    linear = [(channel / 255) ** 2.2 for channel in background]
    return BLACK if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.28 else WHITE


def draw_detections(
    picture: Picture,
    detection: AnyBoxes,
    classes: Sequence[str],
    score_threshold: float = 0.0,
) -> Picture:
    """A copy of the picture with boxes and labels: 'name 0.87' for a detection, 'name' for a target.

    Lines and text grow with the picture. Detections below the threshold are left out; ignore regions of a
    target are dashed and grey. Labels stay inside the picture; one that finds no place free of other labels
    near its box is left out, the colour of the box then tells its class.
    """
    image = Image.fromarray(np.ascontiguousarray(picture))
    draw = ImageDraw.Draw(image)
    longest = max(image.size)
    width = max(1, round(longest / 200))
    for region in cast(Target, detection)["ignore"].tolist() if "ignore" in detection else ():
        _dashed(draw, _corners(region), width)
    marks = _marks(detection, classes, score_threshold)
    for mark in reversed(marks):  # the best score on top
        draw.rectangle(_pixels(mark.box, image.size), outline=mark.colour, width=width)
    _draw_labels(draw, marks, image.size, font(round(8 + longest / 130)))
    return np.asarray(image).copy()


def draw_mark(picture: Picture, box: Box, text: str, colour: Colour = RED) -> Picture:
    """A copy of the picture with one box (x1, y1, x2, y2), which may leave it, and a word at it."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    draw = ImageDraw.Draw(image)
    mark = Mark(box, colour, text)
    draw.rectangle(_pixels(box, image.size), outline=colour, width=max(1, round(max(image.size) / 160)))
    _draw_labels(draw, [mark], image.size, font(round(8 + max(image.size) / 130)))
    return np.asarray(image).copy()


def contact_sheet(
    rows: Sequence[tuple[Picture, Target, Detection]],
    classes: Sequence[str],
    score_threshold: float = 0.3,
    names: Sequence[str] | None = None,
) -> Picture:
    """Pictures with their ground truth (left) beside what was predicted (right), two such pairs in a line.

    `names` are the captions, such as file names. Pictures of any size are fitted into equal cells, small ones
    enlarged before drawing, so that labels can be read. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one picture, got none")
    cell = _cell_size([picture for picture, _, _ in rows])
    captions = names if names is not None else [""] * len(rows)
    pairs = []
    for (picture, target, detection), name in zip(rows, captions, strict=True):
        resized, scales = fit_picture(picture, cell)
        truth = draw_detections(resized, _scaled(target, scales), classes)
        found = draw_detections(resized, _scaled(detection, scales), classes, score_threshold)
        kept = int((detection["scores"] >= score_threshold).sum())
        left = _panel(truth, cell, f"ground truth: {_count(len(target['boxes']))}", name)
        pairs.append(np.hstack([left, _panel(found, cell, f"predictions ≥ {score_threshold:g}: {_count(kept)}", "")]))
    return _grid(pairs, columns=min(2, len(pairs)), gap=26)


def picture_sheet(
    pictures: Sequence[Picture], titles: Sequence[str], names: Sequence[str], columns: int = 4
) -> Picture:
    """Pictures of equal width under their titles (left) and names (right), `columns` in a line."""
    cell = max(picture.shape[1] for picture in pictures), 0
    tiles = [_panel(*item[:1], cell, *item[1:]) for item in zip(pictures, titles, names, strict=True)]
    return _grid(tiles, columns=min(columns, len(tiles)), gap=10)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture whole or not at all, as the file name's ending says (.jpg, .jpeg, .png, ...).

    Raises ValueError, naming the file, for an unknown ending or where nothing can be written; OSError when the disk is
    full.
    """
    path = Path(path)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix.lower() in (".jpg", ".jpeg") else []
    try:
        _, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    except cv2.error as error:
        text = f"cannot write {path}: no picture format for the ending '{path.suffix}'; use .jpg or .png"
        raise ValueError(text) from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data.tobytes())
    except OSError as error:
        if is_disk_full(error):
            reason = f"cannot write the picture ({error.strerror}): free space"
            raise OSError(error.errno, reason, str(path)) from error
        raise ValueError(f"cannot write the picture {path}: {error.strerror or error}") from error


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: Latin, Greek, Cyrillic and more, no Chinese or Japanese."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def _marks(detection: AnyBoxes, classes: Sequence[str], threshold: float) -> list[Mark]:
    """What to draw, best score first."""
    boxes, labels = detection["boxes"].tolist(), detection["labels"].tolist()
    scores = cast(Detection, detection)["scores"].tolist() if "scores" in detection else None
    order = list(range(len(boxes)))
    if scores is not None:
        order = sorted((i for i in order if scores[i] >= threshold), key=lambda i: -scores[i])
    return [
        Mark(
            _corners(boxes[i]),
            class_colour(labels[i]),
            classes[labels[i]] if scores is None else f"{classes[labels[i]]} {scores[i]:.2f}",
        )
        for i in order
    ]


def _corners(box: Sequence[float]) -> Box:
    x1, y1, x2, y2 = box
    return x1, y1, x2, y2


def _pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """First and last pixel of a box in both directions, inside a picture of `size` (width, height)."""
    x1, y1 = (min(max(round(v), 0), side - 1) for v, side in zip(box[:2], size, strict=True))
    x2, y2 = (min(max(round(v) - 1, low), side - 1) for v, low, side in zip(box[2:], (x1, y1), size, strict=True))
    return x1, y1, x2, y2


def _draw_labels(
    draw: ImageDraw.ImageDraw, marks: Sequence[Mark], size: tuple[int, int], face: ImageFont.FreeTypeFont
) -> None:
    """Best score first: each label takes the first place near its box that no other has taken."""
    ascent, descent = face.getmetrics()
    pad = max(1, face.size // 6)
    placed: list[tuple[Mark, Box]] = []
    for mark in marks:
        extent = (math.ceil(draw.textlength(mark.text, face)) + 2 * pad, ascent + descent)
        places = (_inside(place, extent, size) for place in _places(mark.box, extent))
        place = next((p for p in places if not any(_overlap(p, other) for _, other in placed)), None)
        if place is not None:
            placed.append((mark, place))
    for mark, (x1, y1, x2, y2) in placed:
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=mark.colour)
        draw.text((x1 + pad, y1), mark.text, font=face, fill=text_colour(mark.colour))


def _places(box: Box, extent: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """Upper left corners for a label: above a box, below, inside at its top and bottom; left and right."""
    x1, y1, x2, y2 = box
    width, height = extent
    for y in (y1 - height, y2, y1, y2 - height):
        yield x1, y
        yield x2 - width, y


def _inside(corner: tuple[float, float], extent: tuple[float, float], size: tuple[int, int]) -> Box:
    """A label moved into the picture; one that is wider than the picture starts at its left edge."""
    x, y = (max(0, min(round(c), side - e)) for c, e, side in zip(corner, extent, size, strict=True))
    return x, y, x + extent[0], y + extent[1]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _dashed(draw: ImageDraw.ImageDraw, box: Box, width: int) -> None:
    """A box of light dashes on a dark line, which shows on any picture."""
    x1, y1, x2, y2 = _pixels(box, draw.im.size)
    draw.rectangle((x1, y1, x2, y2), outline=INK, width=width)
    dash = 4 * width + 2
    for x in range(x1, x2 + 1, 2 * dash):
        for y in (y1, y2):
            draw.line((x, y, min(x + dash, x2), y), fill=GREY, width=width)
    for y in range(y1, y2 + 1, 2 * dash):
        for x in (x1, x2):
            draw.line((x, y, x, min(y + dash, y2)), fill=GREY, width=width)


def _cell_size(pictures: Sequence[Picture], area: int = 400 * 300) -> tuple[int, int]:
    """Width and height of a cell that suits the pictures' median shape."""
    aspects = [picture.shape[1] / picture.shape[0] for picture in pictures]
    aspect = min(max(float(np.median(aspects)), 0.6), 1.8)
    return round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))


def _panel(drawn: Picture, cell: tuple[int, int], title: str, name: str) -> Picture:
    """A picture centred in the width of a cell, as high as it is, with a caption above it."""
    margin, bar = 4, 24
    panel = Image.new("RGB", (cell[0] + 2 * margin, drawn.shape[0] + bar), PAPER)
    draw = ImageDraw.Draw(panel)
    face = font(14)
    panel.paste(Image.fromarray(drawn), (margin + (cell[0] - drawn.shape[1]) // 2, bar))
    draw.text((margin, 4), title, font=face, fill=INK)
    name = _shortened(name, face, cell[0] - draw.textlength(title, face) - 16)
    draw.text((margin + cell[0] - draw.textlength(name, face), 4), name, font=face, fill=PENCIL)
    return np.asarray(panel)


def _shortened(text: str, face: ImageFont.FreeTypeFont, room: float) -> str:
    """The text, its start replaced by '…' where it is longer than `room` pixels."""
    while len(text) > 1 and face.getlength(text) > room:
        text = "…" + text.lstrip("…")[1:]
    return text if face.getlength(text) <= room else ""


def fit_picture(picture: Picture, cell: tuple[int, int]) -> tuple[Picture, tuple[float, float]]:
    """The picture, as large as the cell (width, height) allows, and its scales in y and x."""
    height, width = picture.shape[:2]
    scale = min(cell[0] / width, cell[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return np.asarray(resized, dtype=np.uint8), (size[1] / height, size[0] / width)


def _scaled(boxes: AnyBoxes, scales: tuple[float, float]) -> AnyBoxes:
    """The same with all boxes, ignore regions too, scaled in y and x."""
    values = cast(dict[str, Tensor], boxes)
    scaled = {key: scale_boxes(values[key], *scales) for key in ("boxes", "ignore") if key in values}
    return cast(AnyBoxes, {**values, **scaled})


def _grid(tiles: Sequence[Picture], columns: int, gap: int) -> Picture:
    """Tiles of equal width, line by line, on paper; a line is as high as its highest tile."""
    width = tiles[0].shape[1]
    lines = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.shape[0] for tile in line) for line in lines]
    sheet = np.empty((sum(heights) + gap * (len(lines) + 1), columns * (width + gap) + gap, 3), dtype=np.uint8)
    sheet[:] = PAPER
    y = gap
    for line, height in zip(lines, heights, strict=True):
        for column, tile in enumerate(line):
            x = gap + column * (width + gap)
            sheet[y : y + tile.shape[0], x : x + width] = tile
        y += height + gap
    return sheet


def _count(number: int) -> str:
    return "1 object" if number == 1 else f"{number} objects"
