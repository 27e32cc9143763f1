"""The data set: pictures from disk, augmented and resized, with their targets.

Everything random is a function of (seed, epoch, number of the picture), whoever reads it and in which order.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from detkit.boxes import scale_boxes
from detkit.data.check import check_target
from detkit.data.coco import CocoIndex
from detkit.data.pictures import read_picture
from detkit.data.resize import ResizeKind, resize_picture
from detkit.data.transforms import Transform
from detkit.types import Meta, Target

Sample = tuple[Tensor, Target, Meta]
Key = tuple[int, int, int]  # epoch, number of the picture, number of its batch

# Thinner than this after augmentation, an object shows nothing to learn from.
MIN_SIDE = 1.0


class DetectionDataset(Dataset[Sample]):
    """`dataset[epoch, i, batch]` is picture i as that epoch shows it: image (3, h, w), target and origin.

    From len() on, i stands for further copies of the pictures, which are augmented otherwise.

    `short_sides`: one is drawn for each batch of an epoch, as pictures of one size waste no padding; `long_side` caps
    the other side, all in pixels.
    """

    def __init__(
        self,
        index: CocoIndex,
        short_sides: Sequence[int],
        long_side: int,
        resize_kind: ResizeKind = "opencv",
        transform: Transform | None = None,
        seed: int = 0,
    ) -> None:
        self.index, self.short_sides, self.long_side = index, tuple(short_sides), long_side
        self.resize_kind, self.transform, self.seed = resize_kind, transform, seed

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: Key) -> Sample:
        epoch, i, batch = key
        rng = np.random.default_rng((self.seed, epoch, i))
        i %= len(self.index)
        size = int(self.index.heights[i]), int(self.index.widths[i])
        picture = read_picture(self.index.path(i), size)
        where = f"{self.index.annotations}, picture {self.index.file_name(i)}"
        target = check_target(self.index.target(i), len(self.index.classes), *size, where)
        drawn = np.random.default_rng((self.seed, epoch, batch, len(self.index))).integers(len(self.short_sides))
        if self.transform is not None:
            try:
                picture, target = _augment(self.transform, picture, target, int(rng.integers(2**31)))
            except ValueError as error:
                raise ValueError(f"{where}: cannot be augmented: {error}") from None
        image = resize_picture(picture, self.short_sides[drawn], self.long_side, self.resize_kind)
        target = _resize_target(target, picture.shape[:2], (image.shape[1], image.shape[2]))
        return image, target, self._meta(i)

    def file_name(self, i: int) -> str:
        """The name of picture i in messages."""
        return self.index.file_name(i % len(self.index))

    def portrait(self) -> NDArray[np.bool_]:
        """(N,) whether a picture is taller than wide."""
        return self.index.heights > self.index.widths

    def _meta(self, i: int) -> Meta:
        return {
            "image_id": int(self.index.image_ids[i]),
            "file_name": self.index.file_name(i),
            "height": int(self.index.heights[i]),
            "width": int(self.index.widths[i]),
        }


def _augment(
    transform: Transform, picture: NDArray[np.uint8], target: Target, seed: int
) -> tuple[NDArray[np.uint8], Target]:
    """Objects and ignore regions move alike; objects that a crop leaves thinner than MIN_SIDE are dropped."""
    ignore = target.get("ignore", torch.zeros(0, 4)).numpy()
    picture, boxes, labels, ignore = transform(picture, target["boxes"].numpy(), target["labels"].numpy(), ignore, seed)
    wide = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all(axis=1)
    return picture, {
        "boxes": torch.from_numpy(boxes[wide]),
        "labels": torch.from_numpy(labels[wide]),
        "ignore": torch.from_numpy(ignore),
    }


def _resize_target(target: Target, before: Sequence[int], after: tuple[int, int]) -> Target:
    scale_y, scale_x = after[0] / before[0], after[1] / before[1]
    resized: Target = {"boxes": scale_boxes(target["boxes"], scale_y, scale_x), "labels": target["labels"]}
    if "ignore" in target:
        resized["ignore"] = scale_boxes(target["ignore"], scale_y, scale_x)
    return resized


def epoch_order(length: int, seed: int, epoch: int) -> list[int]:
    """The numbers 0..length - 1 in the order of an epoch."""
    # a hash, so that neighbouring seeds and epochs have nothing in common with each other's pictures
    digest = hashlib.blake2b(f"{seed},{epoch}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big")).permutation(length).tolist()
