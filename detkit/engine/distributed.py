"""The processes of a run and what they tell each other: torch.distributed, as torchrun starts it.

W processes have ranks 0 to W - 1; those of one machine have local ranks 0, 1, ... The methods of `World` are
collectives: all ranks call them, in the same order. A process on its own (W = 1) needs no group, and they cost nothing.
What travels is tensors and plain data, read with weights_only: nothing that arrives can execute.
"""

import hashlib
import io
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

# What fails on one rank is raised on all of them as the same of these; anything else arrives as a RuntimeError.
_SHARED_ERRORS: tuple[type[Exception], ...] = (ValueError, FloatingPointError, MemoryError, OSError, RuntimeError)
_COMMUNICATION = re.compile(r"gloo|nccl|c10d|peer|timed out|TCPStore|ProcessGroup", re.IGNORECASE)


class PeerLost(ConnectionError):
    """Another process of the run died, or did not answer in time."""


class RaisedElsewhere(Exception):
    """The cause of an error that is raised here because it came up on another rank."""


@dataclass(frozen=True)
class World:
    """This process among the `size` of a run, of which `local_size` run on this machine."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    local_size: int = 1

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.all_gather([0.0])

    def broadcast(self, value: T, source: int = 0) -> T:
        """The `value` of rank `source`: tensors on the CPU and plain data. That of the others is not looked at."""
        if self.size == 1:
            return value
        return _decode(self._broadcast(_encode(value) if self.rank == source else None, source))

    def broadcast_bytes(self, content: bytes, source: int = 0) -> bytes:
        """The `content` of rank `source`, such as that of a file."""
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
        return content if self.size == 1 else self._broadcast(data, source).numpy().tobytes()

    def _broadcast(self, data: Tensor | None, source: int) -> Tensor:
        length = int(self.all_gather([0 if data is None else len(data)])[source][0])
        if data is None or self.rank != source:
            data = torch.empty(length, dtype=torch.uint8)
        if length:
            with communicating(self):
                dist.broadcast(data, source)
        return data

    def gather(self, value: T) -> list[T] | None:
        """The values of all ranks, in their order, on rank 0; None on the others."""
        if self.size == 1:
            return [value]
        data = _encode(value)
        lengths = [int(length) for (length,) in self.all_gather([len(data)])]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(data)] = data
        parts = [torch.empty_like(padded) for _ in lengths] if self.rank == 0 else None
        with communicating(self):
            dist.gather(padded, parts, dst=0)
        if parts is None:
            return None
        return [_decode(part[:length]) for part, length in zip(parts, lengths, strict=True)]

    def all_gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """The numbers of each rank, which gives as many as the others, in the order of ranks."""
        if self.size == 1:
            return [list(numbers)]
        own = torch.tensor(numbers, dtype=torch.float64)
        rows = [torch.empty_like(own) for _ in range(self.size)]
        with communicating(self):
            dist.all_gather(rows, own)
        return [row.tolist() for row in rows]

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Sums over the ranks, added in their order, so that all have the same bits."""
        return [sum(column) for column in zip(*self.all_gather(numbers), strict=True)]

    def largest(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        return int(max(row[0] for row in self.all_gather([number])))

    def all(self, here: bool) -> bool:
        """Whether it is so on all ranks."""
        return all(row[0] for row in self.all_gather([here]))

    def share(self, failure: Exception | None) -> None:
        """Raise on every rank what went wrong on one, the lowest: the same type, and the message with the rank."""
        if self.size == 1:
            if failure is not None:
                raise failure
            return
        failed = [bool(row[0]) for row in self.all_gather([failure is not None])]
        if not any(failed):
            return
        origin = failed.index(True)
        kind, message = self.broadcast(_described(failure), origin)
        if failure is not None and self.rank == origin:
            raise failure
        known = {error.__name__: error for error in _SHARED_ERRORS}
        raise known[kind](f"rank {origin}: {message}") from RaisedElsewhere()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work that all ranks do and that holds no collective: what goes wrong on one is raised on all."""
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        self.share(failure)

    def in_turn(self, work: Callable[[], T]) -> T:
        """The result of `work()`, which the first rank of each machine does before the others of it."""
        results: list[T] = []
        for first in (True, False):
            with self.together():
                if (self.local_rank == 0) == first:
                    results.append(work())
        return results[0]


ALONE = World()


def world_from_environment(environment: Mapping[str, str] = os.environ) -> World:
    """What torchrun says of this process; a world of one where it was started without.

    Raises ValueError where some of the variables are missing or make no sense.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    if "WORLD_SIZE" not in environment and "RANK" not in environment:
        return ALONE
    try:
        rank, local_rank, size, local_size = (int(environment[name]) for name in names)
    except (KeyError, ValueError):
        found = ", ".join(f"{name}={environment.get(name, 'missing')}" for name in names)
        raise ValueError(
            f"several processes are started by torchrun, which sets whole numbers; found {found}"
        ) from None
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        raise ValueError(f"rank {rank} of {size} and local rank {local_rank} of {local_size} do not go together")
    return World(rank, local_rank, size, local_size)


@contextmanager
def joined(world: World, timeout_seconds: float) -> Iterator[None]:
    """The time in which the processes are connected: gloo for the CPU's tensors, NCCL for those of GPUs.

    Raises PeerLost when they have not all come after `timeout_seconds`, the time that each collective may take, too.
    After an error nobody is waited for.
    """
    if world.size == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    limit = timedelta(seconds=timeout_seconds)
    try:
        store = _own_part(next(rendezvous("env://", timeout=limit))[0], world, timeout_seconds)
        dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=limit)
    except (RuntimeError, ValueError) as error:
        raise PeerLost(
            f"rank {world.rank} of {world.size}: not all processes came together within {timeout_seconds:g} s "
            f"at {os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')} ({_first_line(error)})"
        ) from error
    yield
    world.barrier()  # the store that all use ends with its owner
    dist.destroy_process_group()


def _own_part(store: Store, world: World, timeout_seconds: float) -> Store:
    """The part of a store that only the processes of this attempt use. Raises RuntimeError where some do not come.

    torchrun gives processes that it starts again the store of those that died, where their addresses still stand (torch
    2.14). So each process shows a word of its own, and all are there when all have seen the same words.
    """
    ranks = range(world.size)
    store.set(f"word {world.rank}", secrets.token_hex(8))
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        words = b" ".join(store.get(f"word {rank}") for rank in ranks)
        seen = hashlib.sha256(words).hexdigest()
        store.set(f"{seen} {world.rank}", "seen")
        if store.check([f"{seen} {rank}" for rank in ranks]):
            return PrefixStore(seen, store)
        time.sleep(0.05)
    raise RuntimeError(f"only some of {world.size} processes came")


@contextmanager
def communicating(world: World) -> Iterator[None]:
    """Raise PeerLost where torch says, in one of many ways, that a collective failed."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or _COMMUNICATION.search(str(error)):
            raise PeerLost(
                f"rank {world.rank} of {world.size}: another process died or did not answer in time "
                f"({_first_line(error)}); the last checkpoint is whole, go on with --resume"
            ) from error
        raise


def data_parallel(model: nn.Module, world: World) -> nn.Module:
    """The model with its gradients averaged over the ranks; the model itself in a world of one.

    A parameter that a rank's batch does not reach counts as zero there. The buckets stay as they were first cut, so
    that sums do not depend on when a run was resumed. Raises ValueError for SyncBatchNorm on a CPU: torch has none.
    """
    if world.size == 1:
        return model
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise ValueError(
            "norm=sync: torch synchronises batch norm on GPUs only, and this run is on the CPU; "
            "take norm=group or norm=frozen, or norm=batch for statistics of each process's own pictures"
        )
    return DistributedDataParallel(model, forward_sync_buffers=False, find_unused_parameters=True)


@torch.no_grad()
def average_statistics(model: nn.Module, world: World) -> None:
    """Make the running statistics of batch norm the mean of all ranks', each of which saw its own pictures only."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and not isinstance(module, nn.SyncBatchNorm)
    ]
    buffers = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
    if world.size == 1 or not buffers:
        return
    flat = torch.cat(buffers)
    with communicating(world):
        dist.all_reduce(flat)
    means = torch.split(flat / world.size, [len(buffer) for buffer in buffers])
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean)


def _described(failure: Exception | None) -> tuple[str, str]:
    kind = next((error for error in _SHARED_ERRORS if isinstance(failure, error)), None)
    return (kind.__name__, str(failure)) if kind else ("RuntimeError", f"{type(failure).__name__}: {failure}")


def _encode(value: Any) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _decode(data: Tensor) -> Any:
    return torch.load(io.BytesIO(data.numpy().tobytes()), weights_only=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
