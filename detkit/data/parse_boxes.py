"""From the `bbox` entries of a COCO JSON to boxes; everything is vectorised but the rows that are odd.

A annotations. `problems` maps the place of a row, 0 .. A - 1, to what is wrong with its box.
"""

from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]
FAR = 1.1  # a box that reaches beyond this multiple of the picture's size is no mere overhang


def read_boxes(values: list[Any], problems: dict[int, str]) -> NDArray[np.float64]:
    """The entries as numbers (A, 4), x y width height px; rows that are no four finite numbers become 0, 0, 1, 1."""
    plain = _as_array(values)
    if plain is None:
        for place, value in enumerate(values):
            if _as_array([value]) is None:
                problems[place] = f"bbox must be four numbers [x, y, width, height], got {value!r:.80}"
        plain = _as_array([[0, 0, 1, 1] if place in problems else value for place, value in enumerate(values)])
        assert plain is not None
    odd = ~np.isfinite(plain).all(axis=1)
    for place in np.flatnonzero(odd).tolist():
        problems[place] = f"bbox {values[place]} is not finite"
    plain[odd] = (0, 0, 1, 1)
    return plain


def _as_array(values: list[Any]) -> NDArray[np.float64] | None:
    """Numbers (A, 4), or None unless each value is a list of four; numpy alone would take text and truth values too."""
    if not values:
        return np.zeros((0, 4))
    if set(map(type, values)) != {list} or set(map(len, values)) != {4}:
        return None
    if not set(map(type, chain.from_iterable(values))) <= {int, float}:
        return None
    try:
        return np.array(values, np.float64)
    except OverflowError:  # a whole number of more than 300 digits
        return None


class OtherFormat(ValueError):
    """The boxes of a whole file are corners (`xyxy`) or fractions of the picture's size; `reason` says why."""

    def __init__(self, path: Path, form: Literal["xyxy", "fractional"], reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.form, self.reason = form, reason


def like_corners(boxes: Numbers, heights: Numbers, widths: Numbers) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which boxes (A, 4) reach far out of their pictures as x y width height, and which fit as x1 y1 x2 y2: (A,)."""
    x, y, w, h = boxes.T
    far = (x + w > FAR * widths) | (y + h > FAR * heights)
    return far, (w > x) & (h > y) & (w <= widths + 1) & (h <= heights + 1)


def refuse_other_formats(
    path: Path,
    boxes: NDArray[np.float64],
    heights: NDArray[np.int32],
    widths: NDArray[np.int32],
    ids: NDArray[np.int64],
    problems: dict[int, str],
) -> None:
    """Raises OtherFormat when the boxes as a whole are corners (x1, y1, x2, y2), or fractions of the picture's size."""
    good = np.ones(len(boxes), bool)
    good[list(problems)] = False
    if not good.any():
        return
    (x, y, w, h), height, width = boxes[good].T, heights[good], widths[good]
    first = int(np.flatnonzero(good)[0])
    example = f"for example annotation {ids[first]}: {boxes[first].tolist()}"
    far, fits = like_corners(boxes[good], height, width)
    if far.mean() > 0.5 and fits.mean() > 0.95:
        first = int(np.flatnonzero(good)[np.flatnonzero(far)[0]])
        raise OtherFormat(
            path,
            "xyxy",
            f"{int(far.sum())} of {len(far)} boxes leave their picture when read as COCO's"
            f" [x, y, width, height], and fit when read as corners [x1, y1, x2, y2]: the file has xyxy instead of xywh,"
            f" for example annotation {ids[first]}: {boxes[first].tolist()}; write x2 - x1, y2 - y1 for x2, y2",
        )
    if max((x + w).max(), (y + h).max()) <= 1.001 and min(height.min(), width.min()) > 8:
        raise OtherFormat(
            path,
            "fractional",
            f"all boxes lie within one pixel, {example}: they are fractions of the picture's size, but COCO's"
            " [x, y, width, height] are pixels; multiply by the picture's width and height",
        )


def check_boxes(
    boxes: NDArray[np.float64], heights: NDArray[np.int32], widths: NDArray[np.int32], problems: dict[int, str]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Corners (A, 4) clipped to the pictures, and which boxes (A,) that changed; bad ones are added to `problems`."""
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)
    limits = np.stack((widths, heights, widths, heights), axis=1)
    inside = np.clip(corners, 0, limits)
    packed = inside.astype(np.float32)
    empty = np.any(boxes[:, 2:] <= 0, axis=1)
    outside = np.any(inside[:, 2:] <= inside[:, :2], axis=1)
    thin = np.any(packed[:, 2:] <= packed[:, :2], axis=1)
    for place in np.flatnonzero(empty | outside | thin).tolist():
        problems.setdefault(place, _describe(boxes[place], empty[place], outside[place], heights[place], widths[place]))
    # Sums of rounded decimals overhang by less than a hundredth of a pixel: nothing that was clipped.
    return packed, np.any(np.abs(inside - corners) > 0.01, axis=1)


def _describe(box: NDArray[np.float64], empty: bool, outside: bool, height: int, width: int) -> str:
    shown = f"bbox {box.tolist()}"
    if empty:
        return f"{shown} has no width or height"
    if outside:
        return f"{shown} lies wholly outside the picture of {width} x {height}"
    return f"{shown} is too thin to be stored"
