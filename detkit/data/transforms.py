"""Augmentation: flips, colour and crops. All of albumentations lives in this file.

N boxes, M ignore regions. Boxes are (x1, y1, x2, y2) in pixels, inside the picture.
"""

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detkit.types import Picture

if TYPE_CHECKING:
    import albumentations

Boxes = NDArray[np.float32]  # (N, 4)
Labels = NDArray[np.int64]  # (N,)

MIN_VISIBLE = 0.3  # an object of which a crop leaves less than this share of its box is dropped
LARGEST_CUT = 0.25  # a crop takes at most this share of a side away, at each edge


class Transform:
    """A chain of random steps which is a function of its arguments: the same seed gives the same result.

    Picklable, so that spawned workers can have it.
    """

    def __init__(self, compose: "albumentations.Compose") -> None:
        self.compose = compose

    def __call__(
        self, picture: Picture, boxes: Boxes, labels: Labels, ignore: Boxes, seed: int
    ) -> tuple[Picture, Boxes, Labels, Boxes]:
        """Picture, boxes (N, 4), labels (N,) and ignore regions (M, 4), all moved alike.

        Objects which a crop leaves less than MIN_VISIBLE of are dropped; ignore regions stay while a part is visible.
        """
        rows = np.concatenate((boxes, ignore)).astype(np.float64)
        indexed = np.concatenate((rows, np.arange(len(rows))[:, None]), axis=1)
        self.compose.set_random_seed(seed)
        result = self.compose(image=picture, bboxes=indexed)
        moved = np.asarray(result["bboxes"], np.float64).reshape(-1, 5 if len(result["bboxes"]) else 4)
        index = moved[:, 4].astype(np.int64) if len(moved) else np.zeros(0, np.int64)
        moved = moved[:, :4]
        is_object = index < len(boxes)
        keep = is_object & (_areas(moved) >= MIN_VISIBLE * _areas(rows[index]))
        return (
            np.ascontiguousarray(result["image"]),
            moved[keep].astype(np.float32),
            labels[index[keep]],
            moved[~is_object].astype(np.float32),
        )


def build_transform(flip: float, vertical_flip: float, colour: float, crop: float) -> Transform | None:
    """Steps with the given probabilities; 0 leaves a step out, and None comes back when nothing is left."""
    if not any(probability > 0 for probability in (flip, vertical_flip, colour, crop)):
        return None
    # albumentations asks the network for a newer version when it is imported, unless this is set.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A

    steps: tuple[tuple[float, Callable[[float], Any]], ...] = (
        (crop, lambda p: A.RandomCropFromBorders(*[LARGEST_CUT] * 4, p=p)),
        (flip, lambda p: A.HorizontalFlip(p=p)),
        (vertical_flip, lambda p: A.VerticalFlip(p=p)),
        (colour, lambda p: A.ColorJitter((0.75, 1.25), (0.75, 1.25), (0.75, 1.25), (-0.03, 0.03), p=p)),
    )
    chosen = [make(probability) for probability, make in steps if probability > 0]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Got processor for bboxes")  # colour alone moves no boxes, and that is fine
        return Transform(A.Compose(chosen, bbox_params=A.BboxParams(format="pascal_voc")))


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
