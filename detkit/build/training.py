"""The training loop of a config, and what it runs on."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detkit.build.thawing import Thawing
from detkit.config import TrainConfig
from detkit.engine.distributed import ALONE, World
from detkit.engine.interface import Evaluate, Loader
from detkit.engine.resume import Resumed
from detkit.engine.schedule import build_optimizer, build_scheduler, epoch_steps, scaled_lr, total_steps
from detkit.engine.step import Precision
from detkit.engine.train import Trainer

# Keys of a config that the loop has under the same names.
LOOP_KEYS = (
    *("seed", "accumulate", "clip_norm", "skip_nonfinite", "ema_decay", "eval_every", "patience"),
    *("save_every", "checkpoint_minutes", "log_every", "loggers"),
)


def build_trainer(
    options: TrainConfig,
    model: nn.Module,
    loader: Loader,
    folder: Path,
    checkpoint_extra: dict[str, Any],
    evaluate: Evaluate,
    resume: Resumed | None,
    precision: Precision,
    best_metric: str = "AP",
    world: World = ALONE,
    owner: bool = True,
) -> Trainer:
    """The training loop with optimizer and schedule; the model is on its device already."""
    steps = total_steps(loader.steps_per_epoch, options.accumulate, options.epochs, options.iterations)
    decay_steps = round(options.decay_epochs * epoch_steps(loader.steps_per_epoch, options.accumulate))
    thawing = None if options.thaw_at is None else Thawing(model, options.thaw_at)
    if thawing is not None:
        thawing.thaw()
    optimizer, scheduler = _optimizer_and_schedule(options, model, steps, decay_steps, world.size)
    return Trainer(
        model=model,
        loader=loader,
        optimizer=optimizer,
        scheduler=scheduler,
        folder=folder,
        steps=steps,
        checkpoint_extra=checkpoint_extra,
        device=next(model.parameters()).device,
        precision=precision,
        evaluate=evaluate,
        best_metric=best_metric,
        start_epoch=thawing,
        resume=resume.state if resume else None,
        new_settings=bool(resume and resume.differences),
        world=world,
        owner=owner,
        **{key: getattr(options, key) for key in LOOP_KEYS},
    )


def _optimizer_and_schedule(
    options: TrainConfig, model: nn.Module, steps: int, decay_steps: int, world_size: int
) -> tuple[Optimizer, LRScheduler]:
    optimizer = build_optimizer(
        model,
        options.optimizer,
        scaled_lr(options.lr, options.batch_size, options.accumulate, world_size),
        options.weight_decay,
        options.momentum,
        options.backbone_lr_factor,
        nesterov=options.nesterov,
        alpha=options.alpha,
        eps=options.eps,
    )
    scheduler = build_scheduler(
        optimizer,
        options.schedule,
        steps,
        options.warmup_steps,
        options.warmup_factor,
        options.milestones,
        options.gamma,
        decay_steps,
    )
    return optimizer, scheduler


def choose_device(name: str, world: World = ALONE) -> torch.device:
    """`auto`: a GPU where torch sees one, else the CPU; of several processes each takes the GPU of its local rank.

    Raises ValueError for one that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if world.size > 1 and name == "cuda":
        name = f"cuda:{world.local_rank}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` holds no numbers
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0].split(". ")[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}; use auto or cpu") from None
    return device


def choose_precision(name: str, device: torch.device) -> tuple[Precision, str]:
    """The precision to compute in, and why. `auto`: bfloat16 where the processor multiplies in it, else float32."""
    if name not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f"expected precision auto, float32, bfloat16 or float16, got {name!r}")
    if name != "auto":
        return cast(Precision, name), "as asked"
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and _has_bf16_instructions()
    return ("bfloat16", "it has bfloat16 instructions") if fast else ("float32", "it has no bfloat16 instructions")


def _has_bf16_instructions() -> bool:
    """oneDNN runs bfloat16 on any AVX-512 processor, but far slower than float32 where it must emulate it."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16"))
