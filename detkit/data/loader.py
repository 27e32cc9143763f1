"""Batches: which pictures go together, listed before an epoch starts, and worker processes that read them."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Generic, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info
from typing_extensions import TypeVar

from detkit.data.dataset import DetectionDataset, Key, Sample, epoch_order
from detkit.data.packing import PackedBatch, pack, unpack
from detkit.data.sampling import repeated_order
from detkit.data.workers import watched
from detkit.memory import is_out_of_memory
from detkit.types import Batch


class PictureSet(Protocol):
    """What the loader asks of a data set: picture i as an epoch shows it, its name, and which stand upright."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Sample: ...

    def file_name(self, i: int) -> str:
        """The name of picture i in messages."""
        ...

    def portrait(self) -> NDArray[np.bool_]:
        """(N,) whether a picture is taller than wide."""
        ...


Pictures = TypeVar("Pictures", bound=PictureSet, default=DetectionDataset)


class EpochLoader(Generic[Pictures]):
    """Batches of an epoch as a function of (seed, epoch) alone, whatever the number of workers.

    `group_by_aspect`: landscape and portrait pictures come in batches of their own, so that little is padding; what is
    left of both groups at the end comes together.
    `repeat_factors`: (N,), how often each picture is to come on average (sampling.py); copies are augmented apart.
    `drop_last`: leave out the batch that is not full; otherwise each picture is seen exactly once an epoch.
    `rank`, `world_size`: this process takes every world_size-th batch. With `drop_last` all take the same number, so
    the last batches may be left out; otherwise some may have one more than others.
    `skip_unreadable`: leave pictures that cannot be read out of their batch and name them in `skipped`, not raise.
    `worker_timeout`: seconds without a batch from the workers after which one counts as hanging; 0: never.
    """

    def __init__(
        self,
        dataset: Pictures,
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
        skip_unreadable: bool = False,
        worker_timeout: float = 0.0,
        repeat_factors: NDArray[np.float64] | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.workers, self.pin_memory, self.drop_last = workers, pin_memory, drop_last
        self.rank, self.world_size = rank, world_size
        self.skip_unreadable, self.worker_timeout = skip_unreadable, worker_timeout
        self.skipped: dict[str, str] = {}  # file name -> what was wrong
        self.repeat_factors = repeat_factors
        self._portrait = dataset.portrait() if group_by_aspect else np.zeros(len(dataset), bool)
        self.steps_per_epoch = len(self.batches(0))

    def batches(self, epoch: int) -> list[list[int]]:
        """The numbers of the pictures of each batch of this process, in order."""
        batches = self._grouped(self._order(epoch))
        if self.drop_last and len(batches) > 1 and len(batches[-1]) < self.batch_size:
            batches.pop()
        if self.drop_last:
            batches = batches[: len(batches) // self.world_size * self.world_size]
        return batches[self.rank :: self.world_size]

    def _order(self, epoch: int) -> list[int]:
        if self.repeat_factors is not None:
            return repeated_order(self.repeat_factors, self.seed, epoch)
        count = len(self.dataset)
        return epoch_order(count, self.seed, epoch) if self.shuffle else list(range(count))

    def _grouped(self, order: Sequence[int]) -> list[list[int]]:
        """A batch is given out when it is full, so that the order stays as random as `order` is."""
        waiting: dict[bool, list[int]] = {False: [], True: []}
        batches = []
        for i in order:
            group = waiting[bool(self._portrait[i % len(self._portrait)])]
            group.append(i)
            if len(group) == self.batch_size:
                batches.append(group.copy())
                group.clear()
        # Mixed, or a data set with few portrait pictures would never show one of them.
        left = waiting[False] + waiting[True]
        return batches + [left[at : at + self.batch_size] for at in range(0, len(left), self.batch_size)]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start` + 1, ... of an epoch; those before are not read.

        Raises ValueError where a picture or its annotation is wrong, ChildProcessError when a worker dies, TimeoutError
        when one hangs, MemoryError when memory or shared memory is out.
        """
        listed = list(enumerate(self.batches(epoch)))[start:]
        keys = [[(epoch, i, number) for i in batch] for number, batch in listed]
        loader = DataLoader(
            _Guarded(self.dataset),
            batch_sampler=keys,
            num_workers=self.workers,
            collate_fn=_load,
            pin_memory=self.pin_memory,
            worker_init_fn=_start_worker if self.workers else None,
            generator=torch.Generator(),  # its own: the global one stays as the training step seeded it
        )
        with closing(watched(loader, self.worker_timeout)) as batches:
            for loaded in batches:
                yield self._accept(loaded)

    def _accept(self, loaded: "_Loaded") -> Batch:
        for failure in loaded.failures:
            if failure.out_of_memory:
                raise MemoryError(failure.reason)
            if not self.skip_unreadable:
                raise ValueError(failure.reason)
            self.skipped[failure.file_name] = failure.reason
        if loaded.packed is None:
            raise ValueError(
                f"none of the {len(loaded.failures)} pictures of a batch can be read: {loaded.failures[0].reason}"
            )
        return unpack(loaded.packed)


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples to a batch."""
    images, targets, metas = zip(*samples, strict=True)
    return Batch(list(images), list(targets), list(metas))


@dataclass(frozen=True)
class _Failure:
    """An error as a value: raised in a worker, it would arrive wrapped in a worker's traceback."""

    file_name: str
    reason: str
    out_of_memory: bool = False


@dataclass(frozen=True)
class _Loaded:
    """What was read of a batch, and what could not be."""

    packed: PackedBatch | None
    failures: list[_Failure]

    def pin_memory(self) -> "_Loaded":
        return replace(self, packed=self.packed.pin_memory()) if self.packed else self


class _Guarded(Dataset["Sample | _Failure"]):
    """Hands errors over instead of raising them."""

    def __init__(self, dataset: PictureSet) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Key) -> "Sample | _Failure":
        name = self.dataset.file_name(key[1])
        try:
            return self.dataset[key]
        except Exception as error:
            if is_out_of_memory(error):
                return _Failure(name, _no_memory(f"reading {name}", error), out_of_memory=True)
            if isinstance(error, ValueError):
                return _Failure(name, str(error))
            raise


def _load(samples: "Sequence[Sample | _Failure]") -> _Loaded:
    good = [sample for sample in samples if not isinstance(sample, _Failure)]
    failures = [sample for sample in samples if isinstance(sample, _Failure)]
    try:
        packed = pack(collate(good)) if good else None
        if packed and get_worker_info() is not None:
            packed.share_memory()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return _Loaded(None, [_Failure("", _no_memory("joining a batch", error), out_of_memory=True)])
    return _Loaded(packed, failures)


def _no_memory(doing: str, error: BaseException) -> str:
    if "shared memory" in str(error):
        return (
            f"the shared memory, through which workers hand over batches, is full when {doing}: make /dev/shm larger "
            "(docker run --shm-size=8g), lower data.workers or train.batch_size, or set data.workers=0"
        )
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"out of memory when {doing} ({reason}); lower data.workers, train.batch_size or the size of the pictures "
        "(data.short_side, or data.size of a classifier)"
    )


def _start_worker(number: int) -> None:
    # one thread a worker: the cores belong to the training step
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
