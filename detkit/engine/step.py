"""One optimizer step over a group of batches, and the check that its numbers are finite."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detkit.types import Batch

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class StepResult:
    """Losses of a step (mean over its batches; `loss` is their sum) and the gradient's norm before clipping."""

    losses: dict[str, float]
    grad_norm: float


@dataclass
class Stepper:
    """Forward, backward, clipping and update. `model(images, targets)` returns a dict of scalar losses.

    `clip_norm` 0 is off. float16 runs with a gradient scaler, whose state is `scaler.state_dict()`.
    """

    model: nn.Module
    optimizer: Optimizer
    device: torch.device
    precision: Precision = "float32"
    clip_norm: float = 0.0
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"precision must be float32, bfloat16 or float16, got {self.precision!r}")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")

    def step(self, batches: Sequence[Batch], number: int) -> StepResult:
        """Update the weights by the mean gradient of `batches`; `number` is the step's, for error messages.

        Raises FloatingPointError, before any weight is touched, when a loss or the gradient is not finite,
        and MemoryError that says what to turn down when memory is out.
        """
        self.optimizer.zero_grad(set_to_none=True)
        try:
            terms = [self._backward(batch, len(batches)) for batch in batches]
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise MemoryError(_out_of_memory(batches, number)) from error
            raise
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        values = _to_host(terms, norm)
        _check_finite(values, batches, number, check_norm=not self.scaler.is_enabled())
        if self.clip_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self._parameters(), self.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return StepResult(_mean(values[0]), values[1])

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _autocast(self) -> AbstractContextManager[object]:
        dtype = torch.float16 if self.precision == "float16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "float32")

    def _backward(self, batch: Batch, share: int) -> dict[str, Tensor]:
        moved = batch.to(self.device)
        with self._autocast():
            losses = self.model(moved.images, moved.targets)
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


def _check_finite(
    values: tuple[list[dict[str, float]], float], batches: Sequence[Batch], number: int, check_norm: bool
) -> None:
    terms, norm = values
    for losses, batch in zip(terms, batches, strict=True):
        if not all(math.isfinite(value) for value in losses.values()):
            raise FloatingPointError(_not_finite("a loss", losses, [batch], number))
    if check_norm and not math.isfinite(norm):
        raise FloatingPointError(_not_finite(f"the gradient's norm ({norm})", _mean(terms), batches, number))


def _not_finite(what: str, losses: dict[str, float], batches: Sequence[Batch], number: int) -> str:
    listed = ", ".join(f"{name}={value:.6g}" for name, value in losses.items())
    pictures = ", ".join(f"{m['file_name']} (id {m['image_id']})" for batch in batches for m in batch.metas)
    return (
        f"step {number}: {what} is not finite: {listed}; pictures: {pictures}. Nothing was saved after it; "
        "look at these pictures' annotations, lower train.lr, or turn on gradient clipping"
    )


def _out_of_memory(batches: Sequence[Batch], number: int) -> str:
    pictures = [image for batch in batches for image in batch.images]
    sizes = ", ".join(f"{image.shape[-1]}x{image.shape[-2]}" for image in pictures)
    return (
        f"step {number}: out of memory with {len(batches[0].images)} pictures a batch ({sizes}); "
        "lower train.batch_size or the size of the pictures (data.short_side, or data.size of a classifier), or set "
        "train.precision=bfloat16"
    )
