"""Steps whose loss or gradient is not finite: written down with all that is known, and skipped where some may be."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detkit.engine.step import NotFiniteError, Stepper, StepResult
from detkit.files import write_json
from detkit.types import Batch, Meta, Target


@dataclass
class NonFiniteGuard:
    """Takes steps, of which `allowed` may fail by numbers that are not finite; `skipped` of them did.

    Such a step changes neither weights nor buffers (a running mean that has met NaN never recovers). What is known of
    it is written to nonfinite_STEP.json in `folder`.
    """

    folder: Path
    allowed: int = 0
    skipped: int = 0

    def step(
        self, stepper: Stepper, batches: Sequence[Batch], number: int, say: Callable[[str], None]
    ) -> StepResult | None:
        """The result of a step, None when it was skipped. Raises FloatingPointError when no more may be."""
        buffers = [buffer.clone() for buffer in stepper.model.buffers()] if self.skipped < self.allowed else []
        try:
            return stepper.step(batches, number)
        except NotFiniteError as error:
            path = self.folder / f"nonfinite_{number:07d}.json"
            parts = stepper.world.gather(_batches(error, batches, stepper.world.rank))
            if parts is not None:
                write_json(
                    path, {**_report(error, stepper, number), "batches": [row for part in parts for row in part]}
                )
            if self.skipped >= self.allowed:
                raise FloatingPointError(f"{error}. {self._advice()}; more in {path}") from error
            _restore(stepper.model, buffers)
            self.skipped += 1
            say(f"{error}. Skipped: {self.skipped} of train.skip_nonfinite={self.allowed}; more in {path}")
            return None

    def _advice(self) -> str:
        before = f"{self.skipped} such steps were skipped before. " if self.skipped else ""
        return (
            f"{before}Nothing was saved after it; look at these pictures' annotations, lower train.lr, turn on "
            f"gradient clipping (train.clip_norm), or set train.skip_nonfinite={self.allowed + 1} to go on without it"
        )


@torch.no_grad()
def _restore(model: nn.Module, buffers: list[torch.Tensor]) -> None:
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(before)


def _report(error: NotFiniteError, stepper: Stepper, number: int) -> dict[str, Any]:
    groups = stepper.optimizer.param_groups
    return {
        "step": number,
        "error": str(error),
        "precision": stepper.precision,
        "lr": {group.get("name", str(place)): group["lr"] for place, group in enumerate(groups)},
        "grad_norm": _plain(error.grad_norm),
    }


def _batches(error: NotFiniteError, batches: Sequence[Batch], rank: int) -> list[dict[str, Any]]:
    return [
        {
            "rank": rank,
            "losses": {name: _plain(value) for name, value in losses.items()},
            "pictures": [
                _picture(image, target, meta)
                for image, target, meta in zip(batch.images, batch.targets, batch.metas, strict=True)
            ],
        }
        for losses, batch in zip(error.losses, batches, strict=True)
    ]


def _picture(image: torch.Tensor, target: Target, meta: Meta) -> dict[str, Any]:
    """Sizes and boxes in px of the picture as the net saw it; `original` is (width, height) of the file."""
    return {
        "image_id": meta["image_id"],
        "file_name": meta["file_name"],
        "width": image.shape[-1],
        "height": image.shape[-2],
        "original": [meta["width"], meta["height"]],
        "boxes": target["boxes"].tolist(),
        "labels": target["labels"].tolist(),
    }


def _plain(value: float) -> float | str:
    """JSON has no inf and no nan."""
    return value if math.isfinite(value) else str(value)
