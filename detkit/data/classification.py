"""Pictures for a classifier: a random part of each in training, its middle in validation, all of one size.

Everything random is a function of (seed, epoch, number of the picture), as in the detection data set. The targets are
of the same type: the class is that of one object which fills the picture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from detkit.data.dataset import Key, Sample
from detkit.data.folders import FolderIndex
from detkit.data.pictures import read_picture
from detkit.data.transforms import Transform
from detkit.types import Picture, Target

Box = tuple[int, int, int, int]  # x, y, width, height in px
Crop = Callable[[int, int, np.random.Generator], Box]  # height and width of a picture to the part of it to show

ATTEMPTS = 10


@dataclass(frozen=True)
class AreaCrop:
    """A part of random area and shape, anywhere (Szegedy et al., Going Deeper with Convolutions, 2015, section 6).

    `scale`: share of the picture's area. `ratio`: width over height, drawn so that r and 1/r are as likely. Where
    ATTEMPTS draws do not fit into the picture, its middle of the nearest possible shape.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Box:
        for _ in range(ATTEMPTS):
            area = height * width * rng.uniform(*self.scale)
            ratio = np.exp(rng.uniform(*np.log(self.ratio)))
            w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
        w = max(min(width, round(height * self.ratio[1])), 1)
        h = max(min(height, round(width / self.ratio[0])), 1)
        return (width - w) // 2, (height - h) // 2, w, h


@dataclass(frozen=True)
class SideCrop:
    """`size` px square, anywhere in the picture whose short side is first made `short_sides` px, one number or a range.

    Source: Krizhevsky et al., 2012, section 4.1 (256); Simonyan and Zisserman, 2015, section 3.1 (a range). The
    numbers are turned around: the part of the picture as it is that this amounts to, so that it is resized once.
    """

    size: int
    short_sides: tuple[int, int]

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Box:
        short = int(rng.integers(self.short_sides[0], self.short_sides[1] + 1))
        side = _side(height, width, self.size, short)
        return int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1)), side, side


@dataclass(frozen=True)
class CentreCrop:
    """The middle `size` px square of the picture whose short side is first made `short_side` px."""

    size: int
    short_side: int

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Box:
        side = _side(height, width, self.size, self.short_side)
        return (width - side) // 2, (height - side) // 2, side, side


def _side(height: int, width: int, size: int, short_side: int) -> int:
    """Side in px of the square of the picture as it is that is `size` px when its short side is `short_side`."""
    short = min(height, width)
    return min(max(round(size * short / short_side), 1), short)


class ClassificationDataset(Dataset[Sample]):
    """`dataset[epoch, i, batch]` is picture i as that epoch shows it: image (3, size, size) uint8, target, origin."""

    def __init__(
        self, index: FolderIndex, size: int, crop: Crop, transform: Transform | None = None, seed: int = 0
    ) -> None:
        self.index, self.size, self.crop, self.transform, self.seed = index, size, crop, transform, seed

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: Key) -> Sample:
        epoch, i, _ = key
        rng = np.random.default_rng((self.seed, epoch, i))
        original = read_picture(self.index.path(i))
        height, width = original.shape[:2]
        picture = cut(original, self.crop(height, width, rng), self.size)
        box = np.array([[0, 0, self.size, self.size]], np.float32)
        labels = self.index.labels[i : i + 1]
        if self.transform is not None:
            seed = int(rng.integers(2**31))
            picture, box, labels, _ = self.transform(picture, box, labels, np.zeros((0, 4), np.float32), seed)
        target: Target = {"boxes": torch.from_numpy(box), "labels": torch.from_numpy(labels.copy())}
        image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        return image, target, {"image_id": i, "file_name": self.file_name(i), "height": height, "width": width}

    def file_name(self, i: int) -> str:
        """The name of picture i in messages."""
        return self.index.file_name(i)

    def portrait(self) -> NDArray[np.bool_]:
        """(N,) whether a picture is taller than wide: none, all are squares."""
        return np.zeros(len(self), bool)


def cut(picture: Picture, box: Box, size: int) -> Picture:
    """The part `box` of a picture, size x size px: averaged where it shrinks, bilinear where it grows."""
    x, y, width, height = box
    part = np.ascontiguousarray(picture[y : y + height, x : x + width])
    if (width, height) == (size, size):
        return part
    shrinks = width >= size and height >= size
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(part, (size, size), interpolation=kind).astype(np.uint8, copy=False)
