"""What the training loop asks of its surroundings, and what it gives back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from detkit.types import Batch

Evaluate = Callable[[nn.Module, int], dict[str, float]]  # a module in eval mode and the step to metrics
StartEpoch = Callable[[int], None]  # the epoch, counted from 0


class Loader(Protocol):
    """What the loop asks of a loader: the batches of an epoch, a function of (seed, epoch, start) alone."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of an epoch."""
        ...

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        """Batches `start`, `start` + 1, ... of an epoch, both counted from 0; those before are not read."""
        ...


@dataclass(frozen=True)
class TrainResult:
    """Where a run ended: its last step, the metrics of the last evaluation and the best of them."""

    step: int
    metrics: dict[str, Any]
    best: float | None
