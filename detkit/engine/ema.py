"""Exponential moving average of the weights, by torch's AveragedModel with a decay that warms up."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def warmed_decay(decay: float, updates: int) -> float:
    """Decay after n updates: min(decay, (1 + n) / (10 + n)), so that early weights are soon forgotten."""
    return min(decay, (1 + updates) / (10 + updates))


def build_ema(model: nn.Module, decay: float) -> AveragedModel:
    """Average of `model` (not wrapped for distribution): parameters and buffers, whole numbers copied.

    `.module` is a network of its own, in eval mode and without gradients. Raises ValueError for a decay
    outside (0, 1).
    """
    if not 0 < decay < 1:
        raise ValueError(f"ema_decay must lie between 0 and 1, got {decay}; 0 switches the average off")

    def average(averaged: Any, current: Any, updates: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            update = get_ema_multi_avg_fn(warmed_decay(decay, int(updates)))  # type: ignore[no-untyped-call]
            update(averaged, current, updates)
        else:
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)

    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    ema.requires_grad_(False)
    ema.eval()
    return ema


def ema_state(ema: AveragedModel) -> tuple[dict[str, Any], int]:
    """State dict with the model's own names, and the number of updates so far."""
    return ema.module.state_dict(), int(ema.n_averaged)


def load_ema_state(ema: AveragedModel, state: dict[str, Any], updates: int) -> None:
    """The inverse of `ema_state`. Raises RuntimeError when names or shapes differ."""
    ema.module.load_state_dict(state)
    with torch.no_grad():
        ema.n_averaged.fill_(updates)
