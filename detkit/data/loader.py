"""Batches: which pictures go together, listed before an epoch starts, and worker processes that read them."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from detkit.data.dataset import DetectionDataset, Key, Sample, epoch_order
from detkit.types import Batch


class EpochLoader:
    """Batches of an epoch as a function of (seed, epoch) alone, whatever the number of workers.

    `group_by_aspect`: landscape and portrait pictures come in batches of their own, so that little is padding.
    `drop_last`: leave out batches that are not full; otherwise each picture is seen exactly once an epoch.
    `rank`, `world_size`: this process takes every world_size-th batch.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        workers: int = 0,
        group_by_aspect: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.workers, self.pin_memory, self.drop_last = workers, pin_memory, drop_last
        self.rank, self.world_size = rank, world_size
        index = dataset.index
        self._portrait = index.heights > index.widths if group_by_aspect else np.zeros(len(index), bool)
        self.steps_per_epoch = len(self.batches(0))

    def batches(self, epoch: int) -> list[list[int]]:
        """The numbers of the pictures of each batch of this process, in order."""
        count = len(self.dataset)
        order = epoch_order(count, self.seed, epoch) if self.shuffle else list(range(count))
        batches = self._grouped(order)
        if self.drop_last and any(len(batch) == self.batch_size for batch in batches):
            batches = [batch for batch in batches if len(batch) == self.batch_size]
        even = len(batches) // self.world_size * self.world_size
        return batches[self.rank : even : self.world_size] if self.world_size > 1 else batches

    def _grouped(self, order: Sequence[int]) -> list[list[int]]:
        """A batch is given out when it is full, so that the order stays as random as `order` is."""
        waiting: dict[bool, list[int]] = {False: [], True: []}
        batches = []
        for i in order:
            group = waiting[bool(self._portrait[i])]
            group.append(i)
            if len(group) == self.batch_size:
                batches.append(group.copy())
                group.clear()
        return batches + [group for group in waiting.values() if group]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start` + 1, ... of an epoch; those before are not read.

        Raises ValueError where a picture or its annotation is wrong, RuntimeError when a worker dies.
        """
        keys = [[(epoch, i) for i in batch] for batch in self.batches(epoch)[start:]]
        loader = DataLoader(
            _Guarded(self.dataset),
            batch_sampler=keys,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=self.pin_memory,
            worker_init_fn=_start_worker if self.workers else None,
            generator=torch.Generator(),  # its own: the global one stays as the training step seeded it
        )
        for batch in loader:
            if isinstance(batch, ValueError):
                raise batch
            yield batch


class _Guarded(Dataset["Sample | ValueError"]):
    """Hands a user's error over as a value: raised in a worker, it would arrive wrapped in a worker's traceback."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Key) -> "Sample | ValueError":
        try:
            return self.dataset[key]
        except ValueError as error:
            return ValueError(str(error))


def collate(samples: "Sequence[Sample | ValueError]") -> "Batch | ValueError":
    """Samples to a batch; the first error among them instead, if there is one."""
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, ValueError):
            return sample
        good.append(sample)
    images, targets, metas = zip(*good, strict=True)
    return Batch(list(images), list(targets), list(metas))


def _start_worker(number: int) -> None:
    # one thread a worker: the cores belong to the training step
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
