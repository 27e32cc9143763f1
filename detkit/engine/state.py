"""The state of a run: all that its steps change, as a checkpoint keeps it."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from detkit.engine.ema import ema_state, load_ema_state
from detkit.engine.log import Window
from detkit.engine.nonfinite import NonFiniteGuard
from detkit.engine.resume import take_over


@dataclass
class RunState:
    """A run after `step` optimizer steps, of which the best evaluation, larger is better, came at `best_step`."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler
    guard: NonFiniteGuard
    ema: AveragedModel | None
    window: Window = field(default_factory=Window)
    step: int = 0
    best: float | None = None
    best_step: int = 0

    def is_better(self, value: float | None) -> bool:
        """Whether this would be the best evaluation so far."""
        return value is not None and (self.best is None or value > self.best)

    def weights(self) -> dict[str, Any]:
        """What to predict with: the weights, and their moving average where there is one."""
        average = {} if self.ema is None else {"ema": ema_state(self.ema)[0]}
        return {"model": self.model.state_dict(), **average}

    def training(self) -> dict[str, Any]:
        """What going on takes beside the weights."""
        return {
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema_updates": 0 if self.ema is None else ema_state(self.ema)[1],
            "window": self.window.state(),
            "skipped_steps": self.guard.skipped,
        }

    def load(self, checkpoint: dict[str, Any], steps: int, new_settings: bool = False) -> None:
        """Take over a checkpoint in a run of `steps`.

        `new_settings`: go on with this optimizer and schedule instead of the checkpoint's. Raises ValueError when it
        has no training state or belongs to another model.
        """
        training = checkpoint.get("training")
        if not isinstance(training, dict):
            raise ValueError("the checkpoint has no training state: resume from last.pth, not from best.pth")
        try:
            self.model.load_state_dict(checkpoint["model"])
            if new_settings:
                take_over(self.optimizer, self.scheduler, training["optimizer"], min(training["step"], steps))
            else:
                self.optimizer.load_state_dict(training["optimizer"])
                self.scheduler.load_state_dict(training["scheduler"])
            self.scaler.load_state_dict(training["scaler"])
            if self.ema is not None:
                load_ema_state(self.ema, checkpoint.get("ema", checkpoint["model"]), training["ema_updates"])
            self.window = Window(**training["window"])
            self.step, self.guard.skipped = training["step"], training["skipped_steps"]
            self.best, self.best_step = training["best"], training["best_step"]
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(f"the checkpoint does not fit this run's model or settings: {error}") from error
