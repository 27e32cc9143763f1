"""A batch in four tensors, for the way from a worker process to the training process.

Every tensor that crosses costs an open file in both processes; a tensor per picture, and three per target, reach the
usual limit of 1,024 with a few workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detkit.types import Batch, Meta, Target


@dataclass(frozen=True)
class PackedBatch:
    """The pictures and targets of a batch one after the other, and their sizes and numbers."""

    pixels: Tensor
    sizes: list[tuple[int, int, int]]  # (3, H, W) of each picture
    boxes: Tensor  # (sum of N, 4)
    labels: Tensor  # (sum of N,)
    box_counts: list[int]
    ignore: Tensor  # (sum of M, 4)
    ignore_counts: list[int]
    metas: list[Meta]

    def pin_memory(self) -> "PackedBatch":
        """Copy to page-locked memory, as torch's DataLoader asks for with `pin_memory=True`."""
        pinned = {name: getattr(self, name).pin_memory() for name in ("pixels", "boxes", "labels", "ignore")}
        return replace(self, **pinned)

    def share_memory(self) -> None:
        """Move to memory that another process sees. Sending would do the same, but in a thread that loses its errors.

        Raises RuntimeError when the shared memory is full.
        """
        for tensor in (self.pixels, self.boxes, self.labels, self.ignore):
            tensor.share_memory_()  # type: ignore[no-untyped-call]


def pack(batch: Batch) -> PackedBatch:
    """Join the tensors of a batch; unpack(pack(batch)) equals it, without `ignore` where that is empty."""
    ignores = [target.get("ignore", torch.zeros(0, 4)) for target in batch.targets]
    return PackedBatch(
        pixels=torch.cat([image.reshape(-1) for image in batch.images]),
        sizes=[(image.shape[0], image.shape[1], image.shape[2]) for image in batch.images],
        boxes=torch.cat([target["boxes"] for target in batch.targets]),
        labels=torch.cat([target["labels"] for target in batch.targets]),
        box_counts=[len(target["boxes"]) for target in batch.targets],
        ignore=torch.cat(ignores),
        ignore_counts=[len(ignore) for ignore in ignores],
        metas=batch.metas,
    )


def unpack(packed: PackedBatch) -> Batch:
    """The batch again; its tensors are views."""
    pixels = torch.split(packed.pixels, [channels * height * width for channels, height, width in packed.sizes])
    images = [part.view(size) for part, size in zip(pixels, packed.sizes, strict=True)]
    parts: Sequence[tuple[Tensor, Tensor, Tensor]] = list(
        zip(
            torch.split(packed.boxes, packed.box_counts),
            torch.split(packed.labels, packed.box_counts),
            torch.split(packed.ignore, packed.ignore_counts),
            strict=True,
        )
    )
    targets: list[Target] = [{"boxes": boxes, "labels": labels} for boxes, labels, _ in parts]
    for target, (_, _, ignore) in zip(targets, parts, strict=True):
        if len(ignore):
            target["ignore"] = ignore
    return Batch(images, targets, packed.metas)
