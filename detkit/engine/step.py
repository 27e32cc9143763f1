"""One optimizer step over a group of batches, and the check that its numbers are finite."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from detkit.engine.distributed import ALONE, World, average_statistics, communicating, data_parallel
from detkit.memory import is_out_of_memory
from detkit.types import Batch

Precision = Literal["float32", "bfloat16", "float16"]
Losses = dict[str, float]


@dataclass(frozen=True)
class StepResult:
    """Losses of a step (means over its batches and ranks; `loss` is their sum), the gradient's norm before clipping."""

    losses: Losses
    grad_norm: float


class NotFiniteError(FloatingPointError):
    """A loss, here or on another rank, or the gradient's norm is not finite; `losses` are of this rank's batches."""

    def __init__(self, message: str, losses: list[Losses], grad_norm: float) -> None:
        super().__init__(message)
        self.losses, self.grad_norm = losses, grad_norm


@dataclass
class Stepper:
    """Forward, backward, clipping and update. `model(images, targets)` returns a dict of scalar losses.

    `clip_norm` 0 is off. float16 runs with a gradient scaler, whose state is `scaler.state_dict()`. The ranks of
    `world` step together: gradients and batch norm's running statistics are averaged, so that all keep the same bits.
    """

    model: nn.Module
    optimizer: Optimizer
    device: torch.device
    precision: Precision = "float32"
    clip_norm: float = 0.0
    world: World = ALONE
    scaler: torch.amp.GradScaler = field(init=False)
    _parallel: nn.Module = field(init=False)
    _trained: list[bool] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"precision must be float32, bfloat16 or float16, got {self.precision!r}")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")
        self._wrap()

    def step(self, batches: Sequence[Batch], number: int) -> StepResult:
        """Update the weights by the mean gradient of `batches`; `number` is the step's, for error messages.

        Raises NotFiniteError, before any weight is touched and on all ranks, when a loss or the gradient is not
        finite, and MemoryError that says what to turn down when memory is out: the weights may then be half updated.
        """
        try:
            return self._step(batches, number)
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError(_out_of_memory(batches, number)) from error
            raise

    def _step(self, batches: Sequence[Batch], number: int) -> StepResult:
        self._wrap()
        self.optimizer.zero_grad(set_to_none=True)
        with communicating(self.world):
            terms = [self._backward(batch, len(batches), batch is batches[-1]) for batch in batches]
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        losses, length = _to_host(terms, norm)
        try:
            with self.world.together():
                _check_losses(losses, batches, number)
            if not (math.isfinite(length) or self.scaler.is_enabled()):
                raise FloatingPointError(_not_finite(f"the gradient's norm ({length})", _mean(losses), batches, number))
        except FloatingPointError as error:
            self.scaler.update()
            raise NotFiniteError(str(error), losses, length) from error
        if self.clip_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self._parameters(), self.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        average_statistics(self.model, self.world)
        return StepResult(self._mean_of_ranks(_mean(losses)), length)

    def _wrap(self) -> None:
        """Wrap the model for the ranks, anew when stages were frozen or thawed: a wrapper knows what trained then."""
        trained = [parameter.requires_grad for parameter in self.model.parameters()]
        if trained != self._trained:
            self._parallel, self._trained = data_parallel(self.model, self.world), trained

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _autocast(self) -> AbstractContextManager[object]:
        dtype = torch.float16 if self.precision == "float16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "float32")

    def _mean_of_ranks(self, losses: dict[str, float]) -> dict[str, float]:
        sums = self.world.total(list(losses.values()))
        return {name: value / self.world.size for name, value in zip(losses, sums, strict=True)}

    def _local(self) -> AbstractContextManager[None]:
        """Gradients stay on this rank until the step's last batch is added to them."""
        return self._parallel.no_sync() if isinstance(self._parallel, DistributedDataParallel) else nullcontext()

    def _backward(self, batch: Batch, share: int, last: bool) -> dict[str, Tensor]:
        moved = batch.to(self.device)
        with nullcontext() if last else self._local():
            with self._autocast():
                losses = self._parallel(moved.images, moved.targets)
            total = torch.stack([value.float() for value in losses.values()]).sum()
            torch.autograd.backward(self.scaler.scale(total / share))
        return {name: value.detach().float() for name, value in losses.items()}


def _to_host(terms: list[dict[str, Tensor]], norm: Tensor) -> tuple[list[dict[str, float]], float]:
    """All losses and the norm in one copy, which is the only wait for the device in a step."""
    flat = [value for losses in terms for value in losses.values()]
    numbers = iter(torch.stack([*flat, norm.float()]).tolist())
    return [{name: next(numbers) for name in losses} for losses in terms], next(numbers)


def _mean(terms: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for losses in terms for name in losses)
    means = {name: sum(losses.get(name, 0.0) for losses in terms) / len(terms) for name in names}
    return {**means, "loss": sum(means.values())}


def _check_losses(terms: list[dict[str, float]], batches: Sequence[Batch], number: int) -> None:
    for losses, batch in zip(terms, batches, strict=True):
        if not all(math.isfinite(value) for value in losses.values()):
            raise FloatingPointError(_not_finite("a loss", losses, [batch], number))


def _not_finite(what: str, losses: dict[str, float], batches: Sequence[Batch], number: int) -> str:
    listed = ", ".join(f"{name}={value:.6g}" for name, value in losses.items())
    pictures = ", ".join(f"{m['file_name']} (id {m['image_id']})" for batch in batches for m in batch.metas)
    return f"step {number}: {what} is not finite: {listed}; pictures: {pictures}"


def _out_of_memory(batches: Sequence[Batch], number: int) -> str:
    pictures = [image for batch in batches for image in batch.images]
    sizes = ", ".join(f"{image.shape[-1]}x{image.shape[-2]}" for image in pictures)
    return (
        f"step {number}: out of memory with {len(batches[0].images)} pictures a batch ({sizes}); "
        "lower train.batch_size or the size of the pictures (data.short_side, or data.size of a classifier), or set "
        "train.precision=bfloat16"
    )
