"""Optimizer and learning-rate schedule, from plain values. All counts are optimizer steps."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)

OptimizerKind = Literal["sgd", "adamw", "rmsprop"]
ScheduleKind = Literal["multistep", "cosine", "onecycle", "exponential", "linear"]


def scaled_lr(lr: float, batch_size: int, accumulate: int = 1, world_size: int = 1, reference: int = 16) -> float:
    """Learning rate in proportion to the pictures per optimizer step; `lr` is meant for `reference` of them.

    Source: Goyal et al., Accurate, Large Minibatch SGD (2017), linear scaling rule.
    """
    return lr * (batch_size * accumulate * world_size) / reference


def epoch_steps(batches: int, accumulate: int = 1) -> int:
    """Optimizer steps of an epoch of `batches` batches."""
    return math.ceil(batches / accumulate)


def total_steps(batches: int, accumulate: int = 1, epochs: int | None = None, iterations: int | None = None) -> int:
    """Optimizer steps of a run: `iterations` when given, else so many epochs. ValueError when none result."""
    steps = iterations if iterations is not None else (epochs or 0) * epoch_steps(batches, accumulate)
    if steps < 1:
        raise ValueError(
            f"nothing to train: {batches} batches an epoch, train.epochs={epochs}, train.iterations={iterations}"
        )
    return steps


def build_optimizer(
    model: nn.Module,
    kind: OptimizerKind,
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    backbone_lr_factor: float = 1.0,
    backbone_prefix: str = "backbone.",
    decay_norm_and_bias: bool = False,
    nesterov: bool = False,
    alpha: float = 0.9,
    eps: float = 1e-8,
) -> Optimizer:
    """SGD, AdamW or RMSProp over the parameters that require gradients; call it when the model is on its device.

    Parameters of one dimension (norms and biases) get no weight decay unless `decay_norm_and_bias`; those
    whose name starts with `backbone_prefix` get lr * backbone_lr_factor. The first group is not the backbone's
    when there is another. `nesterov` is SGD's; `alpha`, the decay of the mean square, is RMSProp's; `eps` is added to
    the root in RMSProp and AdamW. Raises ValueError when nothing is trainable or `kind` is unknown.
    """
    settings = _parameter_groups(model, lr, weight_decay, backbone_lr_factor, backbone_prefix, decay_norm_and_bias)
    fused = all(p.device.type in ("cpu", "cuda") for group in settings for p in group["params"])
    if kind == "sgd":
        return SGD(settings, lr=lr, momentum=momentum, nesterov=nesterov, fused=fused)
    if kind == "adamw":
        return AdamW(settings, lr=lr, eps=eps, fused=fused)
    if kind == "rmsprop":  # torch has no fused one
        return RMSprop(settings, lr=lr, alpha=alpha, eps=eps, momentum=momentum)
    raise ValueError(f"optimizer must be sgd, adamw or rmsprop, got {kind!r}")


def _parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    backbone_lr_factor: float,
    backbone_prefix: str,
    decay_norm_and_bias: bool,
) -> list[dict[str, Any]]:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = decay_norm_and_bias or parameter.ndim > 1
            groups.setdefault((name.startswith(backbone_prefix), not decays), []).append(parameter)
    if not groups:
        raise ValueError("no parameter of the model requires a gradient: nothing to train; freeze fewer stages")
    return [
        {
            "params": parameters,
            "lr": lr * (backbone_lr_factor if in_backbone else 1.0),
            "weight_decay": 0.0 if undecayed else weight_decay,
            "name": ("backbone" if in_backbone else "rest") + (", no decay" if undecayed else ""),
        }
        for (in_backbone, undecayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_scheduler(
    optimizer: Optimizer,
    kind: ScheduleKind,
    steps: int,
    warmup_steps: int = 0,
    warmup_factor: float = 0.001,
    milestones: Sequence[float] = (2 / 3, 8 / 9),
    gamma: float = 0.1,
    decay_steps: int = 1,
) -> LRScheduler:
    """Torch's own schedulers for a run of `steps`; call `.step()` once after each optimizer step.

    Warm-up is linear from lr * warmup_factor at step 0 to lr at step `warmup_steps`, which is at most half
    the run. `multistep` multiplies by `gamma` at each milestone, a fraction of the run (never before the end
    of the warm-up); `exponential` multiplies by `gamma` every `decay_steps` steps after the warm-up; `cosine` and
    `linear` fall from lr to 0 at step `steps`; `onecycle` rises and falls as cosines, with
    its top at `warmup_steps` (at least 1), to lr * warmup_factor / 10,000. Raises ValueError for values that
    make no schedule.
    """
    if steps < 1 or warmup_steps < 0 or not 0 < warmup_factor <= 1:
        raise ValueError(
            f"a schedule needs steps >= 1, warmup_steps >= 0 and 0 < warmup_factor <= 1, got steps={steps}, "
            f"warmup_steps={warmup_steps}, warmup_factor={warmup_factor}"
        )
    warmup = min(warmup_steps, steps // 2)
    if kind == "onecycle":
        return _one_cycle(optimizer, steps, max(warmup, 1), warmup_factor)
    main: LRScheduler
    if kind == "multistep":
        main = MultiStepLR(optimizer, _milestone_steps(milestones, steps, warmup), gamma)
    elif kind == "exponential":
        main = StepLR(optimizer, max(decay_steps, 1), gamma)
    else:
        main = _fall_to_zero(optimizer, kind, steps - warmup)
    if warmup == 0:
        return main
    rising = LinearLR(optimizer, start_factor=warmup_factor, total_iters=warmup)
    return SequentialLR(optimizer, [rising, main], milestones=[warmup])


def _fall_to_zero(optimizer: Optimizer, kind: ScheduleKind, steps: int) -> LRScheduler:
    if kind == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    if kind == "linear":
        return LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
    raise ValueError(f"schedule must be multistep, cosine, onecycle, exponential or linear, got {kind!r}")


def _milestone_steps(milestones: Sequence[float], steps: int, warmup: int) -> list[int]:
    """Steps of the milestones, counted from the end of the warm-up."""
    if list(milestones) != sorted(milestones) or not all(0 < fraction <= 1 for fraction in milestones):
        raise ValueError(f"milestones are rising fractions of the run in (0, 1], got {list(milestones)}")
    return [max(round(fraction * steps) - warmup, 1) for fraction in milestones]


def _one_cycle(optimizer: Optimizer, steps: int, warmup: int, warmup_factor: float) -> LRScheduler:
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps + 1,  # its last value is for the call after the last step
        pct_start=(warmup + 1) / (steps + 1),  # torch puts the top one step before this share
        div_factor=1 / warmup_factor,
        cycle_momentum=False,
    )
