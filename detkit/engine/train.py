"""The training loop: any module whose forward(images, targets) returns a dict of losses.

A step is an optimizer step; it takes `accumulate` batches of the loader, fewer at the end of an epoch when
the number does not divide. The state of a run is its checkpoint plus the rows of metrics.jsonl: stopped
between any two steps and resumed, a run ends with the same bits as one that ran through.
"""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from detkit.engine.checkpoint import LAST
from detkit.engine.distributed import ALONE, PeerLost, World
from detkit.engine.ema import build_ema
from detkit.engine.interface import Evaluate, Loader, StartEpoch, TrainResult
from detkit.engine.lock import sole_writer
from detkit.engine.log import MetricsLog, ProgressReport, Row, Window
from detkit.engine.loggers import Logger, open_loggers
from detkit.engine.nonfinite import NonFiniteGuard
from detkit.engine.saving import Saver
from detkit.engine.schedule import epoch_steps
from detkit.engine.seeding import seed_step
from detkit.engine.signals import Stopped, StopSignals
from detkit.engine.state import RunState
from detkit.engine.step import Precision, Stepper
from detkit.types import Batch


@dataclass
class Trainer:
    """A run of `steps` optimizer steps in `folder`; `run()` does it.

    model: on `device`, in the layout it trains in. optimizer, scheduler: fresh ones; `resume` fills them.
    evaluate(module, step): metrics of a module in eval mode (the moving average when `ema_decay` > 0), called
        under no_grad every `eval_every` epochs (0: never between) and at the end; of several ranks, those of
        rank 0 count for all. Random numbers it draws change nothing of the training. `best_metric`, larger is better,
        decides what becomes best.pth.
    patience: the run ends after so many evaluations in a row without a better best metric; 0 is off.
    start_epoch(epoch): called before each part of an epoch, counted from 0, also after a resume in its middle.
    save_every: epochs between writing last.pth (at the end always). checkpoint_minutes: also after so many.
    checkpoint_extra: goes into each checkpoint: config, classes, category_ids, what else the caller wants back.
    loggers: names of what gets the rows beside metrics.jsonl, see `open_loggers`.
    resume: a loaded checkpoint with training state. new_settings: go on with this optimizer and schedule instead of
        the checkpoint's, which had others; the optimizer's moments are kept where they fit.
    skip_nonfinite: so many steps that are not finite are skipped. clip_norm, ema_decay: 0 is off.
    world: the ranks that train together; between steps all of them hold the same bits. owner: whether this one writes
        `folder`; all owners write the same, each on the disk of its machine.
    """

    model: nn.Module
    loader: Loader
    optimizer: Optimizer
    scheduler: LRScheduler
    folder: Path
    steps: int
    checkpoint_extra: dict[str, Any]
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "float32"
    accumulate: int = 1
    clip_norm: float = 0.0
    skip_nonfinite: int = 0
    ema_decay: float = 0.0
    evaluate: Evaluate | None = None
    eval_every: int = 1
    best_metric: str = "AP"
    patience: int = 0
    start_epoch: StartEpoch | None = None
    save_every: int = 1
    checkpoint_minutes: float = 0.0
    log_every: int = 20
    loggers: Sequence[str] = ()
    resume: dict[str, Any] | None = None
    new_settings: bool = False
    world: World = ALONE
    owner: bool = True
    console: Console | None = None

    def __post_init__(self) -> None:
        if self.accumulate < 1 or self.log_every < 1 or self.steps < 1:
            raise ValueError("accumulate, log_every and steps must be at least 1")
        if self.loader.steps_per_epoch < 1:
            raise ValueError(
                "the loader has no batches: the data set is empty, or smaller than one batch for each of "
                f"{self.world.size} processes"
            )
        self._stepper = Stepper(self.model, self.optimizer, self.device, self.precision, self.clip_norm, self.world)
        self._guard = NonFiniteGuard(self.folder, self.skip_nonfinite)
        self._metrics: dict[str, Any] = {}
        self._epoch_steps = epoch_steps(self.loader.steps_per_epoch, self.accumulate)
        ema = build_ema(self.model, self.ema_decay) if self.ema_decay else None
        self._state = RunState(self.model, self.optimizer, self.scheduler, self._stepper.scaler, self._guard, ema)
        if self.resume is not None:
            self._state.load(self.resume, self.steps, self.new_settings)
            self.resume = None  # it holds a second copy of all weights
        self._saver = Saver(self.folder, self._state, self.checkpoint_extra, self.owner)

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self._state.step

    @property
    def ema(self) -> AveragedModel | None:
        """The moving average of the weights, where the run keeps one."""
        return self._state.ema

    def run(self) -> TrainResult:
        """Train to the end.

        Raises `Stopped` after a signal, with last.pth written; ValueError when another process trains in the folder;
        FloatingPointError when a loss is not finite and OSError when a file cannot be written: the last good checkpoint
        then stays.
        """
        with ExitStack() as stack:
            with self.world.together():
                if self.owner:
                    stack.enter_context(sole_writer(self.folder))
                self._log = stack.enter_context(MetricsLog(self.folder, self.step, self._open_loggers(), self.owner))
            console = self.console or Console(quiet=self.world.rank > 0)
            self._progress = stack.enter_context(ProgressReport(self.steps, self.step, console))
            self._signals = stack.enter_context(StopSignals())
            self._evaluate_if_due()
            while self.step < self.steps and not self._out_of_patience():
                self._run_epoch()
                self._save_if_due()
                self._evaluate_if_due()
            if self._log.find(self.step, "lr") is None:  # stopped early, between two rows
                self._write_losses()
            self._saver.save()
        return TrainResult(self.step, self._metrics, self._state.best)

    def _open_loggers(self) -> dict[str, Logger]:
        """Each owner has files of its own; a service is told by one rank alone."""
        names = [name for name in self.loggers if self.world.rank == 0 or (self.owner and name == "tensorboard")]
        return open_loggers(names, self.folder, self.step, self.checkpoint_extra["config"])

    def _run_epoch(self) -> None:
        """The steps of the epoch that are left, to its end or the run's."""
        epoch, done = divmod(self.step, self._epoch_steps)
        if self.start_epoch is not None:
            self.start_epoch(epoch)
        batches = self.loader.epoch(epoch, done * self.accumulate)
        self.model.train()
        with ExitStack() as stack:
            if isinstance(batches, Generator):
                stack.enter_context(closing(batches))  # ends its workers
            for _ in range(min(self._epoch_steps - done, self.steps - self.step)):
                self._one_step(batches)
                self._stop_if_asked()
                if self.checkpoint_minutes and self._saver.minutes >= self.checkpoint_minutes:
                    self._saver.save()

    def _one_step(self, batches: Iterator[Batch]) -> None:
        started = time.perf_counter()
        group = self._fetch(batches)
        waited = time.perf_counter() - started
        seed_step(self.seed, self.step, self.world.rank)
        self._state.window.lr = self.optimizer.param_groups[0]["lr"]
        result = self._guard.step(self._stepper, group, self.step + 1, self._progress.say)
        self.scheduler.step()
        if self.ema is not None and result is not None:
            self.ema.update_parameters(self.model)
        self._state.step += 1
        if result is not None:
            pictures = sum(len(batch.images) for batch in group) * self.world.size
            self._state.window.add(result.losses, result.grad_norm, pictures, time.perf_counter() - started, waited)
        self._progress.advance(self.step)
        if self.step % self.log_every == 0 or self.step == self.steps:
            self._write_losses()
            self._state.window = Window()

    def _fetch(self, batches: Iterator[Batch]) -> list[Batch]:
        """The batches of a step. A loader that fails after a signal, as its workers got it too, means: stop."""
        try:
            with self.world.together():
                return self._next_group(batches)
        except (Exception, Stopped) as error:
            if self.world.size > 1 and isinstance(error, (PeerLost, Stopped)):
                raise  # here alone, so that there is nobody to agree with
            self._stop_if_asked()
            if isinstance(error, ValueError | OSError | MemoryError):
                self._saver.save()  # the steps before a bad picture or the death of a worker are good
                self.world.barrier()
            raise

    def _next_group(self, batches: Iterator[Batch]) -> list[Batch]:
        # Of several ranks none may leave at once: the others would wait for its gradients.
        with self._signals.immediate() if self.world.size == 1 else nullcontext():
            group = list(islice(batches, self.accumulate))
        if not group:
            raise RuntimeError(
                f"the loader ended at step {self.step}, before its {self.loader.steps_per_epoch} batches an epoch"
            )
        return group

    def _write_losses(self) -> None:
        """A row of the steps since the last one."""
        skipped = {"skipped_steps": self._guard.skipped} if self.skip_nonfinite else {}
        self._progress.row(self._write_row({**self._state.window.row(), **skipped}))

    def _write_row(self, row: Row) -> Row:
        return self._log.write({"step": self.step, "epoch": (self.step - 1) // self._epoch_steps + 1, **row})

    def _stop_if_asked(self) -> None:
        """Stop where any rank was asked to; all do after the same step, and none leaves before it is saved."""
        signum = self.world.largest(self._signals.received or 0)
        if signum:
            self._saver.save()
            self.world.barrier()
            self._stop(signum)

    def _stop(self, signum: int) -> NoReturn:
        self._saver.save()
        where = f"saved {self.folder / LAST}: go on with --resume" if self.step else "nothing to save yet"
        message = f"{Stopped(signum)} after step {self.step} of {self.steps}; {where}"
        self._progress.say(message)
        raise Stopped(signum, message)

    def _at_epoch(self, every: int) -> bool:
        """Whether the step is the run's last, or ends an epoch whose number `every` divides."""
        epochs, rest = divmod(self.step, self._epoch_steps)
        return self.step == self.steps or (self.step > 0 and rest == 0 and every > 0 and epochs % every == 0)

    def _save_if_due(self) -> None:
        # Several ranks are not sure to stop together in an evaluation, so that they save before it.
        evaluates = self.world.size > 1 and self.evaluate is not None and self._at_epoch(self.eval_every)
        if evaluates or self._at_epoch(self.save_every):
            self._saver.save()

    def _evaluate_if_due(self) -> None:
        """Evaluate at the epochs asked for, once; a run stopped in an evaluation makes up for it on resume."""
        if self.evaluate is None or not self._at_epoch(self.eval_every):
            return
        row = self.world.broadcast(self._log.find(self.step, self.best_metric))
        if row is None:
            row = self._evaluate()
        self._metrics = {key: value for key, value in row.items() if key not in ("step", "epoch")}
        if self._state.is_better(row[self.best_metric]):
            self._state.best, self._state.best_step = row[self.best_metric], self.step

    def _out_of_patience(self) -> bool:
        """Told by steps, so that an evaluation that is made up for on resume does not count twice."""
        if not self.patience or self.evaluate is None or not self.eval_every:
            return False
        state = self._state
        epochs = self.step // self._epoch_steps - state.best_step // self._epoch_steps
        if epochs // self.eval_every < self.patience:
            return False
        best = "" if state.best is None else f" than {state.best:.4f} at step {state.best_step}"
        self._progress.say(
            f"step {self.step}: stopped early, {self.patience} evaluations gave no better {self.best_metric}{best}"
        )
        return True

    def _evaluate(self) -> Row:
        assert self.evaluate is not None
        module = self.model if self.ema is None else self.ema.module
        started = time.perf_counter()
        seed_step(self.seed, self.step)  # an evaluation that is made up for after a resume draws the same numbers
        module.eval()
        try:
            with self._signals.immediate(), torch.no_grad():
                metrics = self.evaluate(module, self.step)
        except Stopped as stopped:
            self._stop(stopped.signum)
        metrics = self.world.broadcast(metrics)
        if self.best_metric not in metrics:
            raise ValueError(f"the evaluation gave {sorted(metrics)}, among which is no {self.best_metric!r}")
        value = metrics[self.best_metric]
        if math.isfinite(value) and self._state.is_better(value):
            self._saver.save_best(metrics)
        seconds = round(time.perf_counter() - started, 3)
        self._progress.say(f"step {self.step} " + " ".join(f"{key} {value:.4f}" for key, value in metrics.items()))
        return self._write_row({**metrics, "evaluation_seconds": seconds})
