"""What a run writes down: metrics.jsonl, loggers beside it, a bar or plain lines on the screen."""

import errno
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from detkit.engine.loggers import Logger
from detkit.engine.run import METRICS
from detkit.files import write_atomically

TIME_FIELDS = (
    "seconds_per_step",
    "data_seconds",
    "pictures_per_second",
    "evaluation_seconds",
)  # differ from run to run

Row = dict[str, Any]


@dataclass
class Window:
    """Sums over the steps since the last row; the part that is stored makes rows exact after a resume.

    `lr` is the learning rate of the last of them.
    """

    lr: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    grad_norm: float = 0.0
    steps: int = 0
    pictures: int = 0
    timed_steps: int = 0  # of this process only, as the times are
    seconds: float = 0.0
    data_seconds: float = 0.0

    def add(self, losses: dict[str, float], grad_norm: float, pictures: int, seconds: float, waited: float) -> None:
        """Take in one step; `waited` is the part of `seconds` in which the loader was waited for."""
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value
        self.grad_norm += grad_norm
        self.steps += 1
        self.pictures += pictures
        self.timed_steps += 1
        self.seconds += seconds
        self.data_seconds += waited

    def row(self) -> Row:
        """Means per step."""
        timed = max(self.timed_steps, 1)
        return {
            "lr": self.lr,
            **{name: value / self.steps for name, value in self.losses.items()},
            "grad_norm": self.grad_norm / self.steps if self.steps else 0.0,  # all may have been skipped
            "seconds_per_step": round(self.seconds / timed, 4),
            "data_seconds": round(self.data_seconds / timed, 4),
            "pictures_per_second": round(self.pictures / self.seconds, 2) if self.seconds else 0.0,
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: everything but the times."""
        return {"lr": self.lr, "losses": dict(self.losses), "grad_norm": self.grad_norm, "steps": self.steps}


class MetricsLog:
    """metrics.jsonl: append-only, one object a line, each with step and epoch; its numbers go to `loggers`, too.

    Opening it drops the rows after `step`, where the run goes on, and a last line that a kill cut in two. A logger that
    fails is left out from then on, with a warning.
    """

    def __init__(
        self, folder: Path, step: int = 0, loggers: Mapping[str, Logger] | None = None, writes: bool = True
    ) -> None:
        self.path = folder / METRICS
        self._loggers = dict(loggers or {})
        self._writes = writes  # False on all ranks but the first: they keep the rows in memory only
        self.rows = read_rows(self.path, step)
        kept = "".join(f"{json.dumps(row)}\n" for row in self.rows)
        if writes and (not self.path.exists() or self.path.read_text(errors="replace") != kept):
            write_atomically(self.path, kept)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, logger in list(self._loggers.items()):
            self._told(name, partial(logger.close, error is None))

    def write(self, row: Row) -> Row:
        """Append a row in one write and return it as written: numbers that are not finite become null.

        Raises OSError when it does not fit on the disk; no part of it is then left.
        """
        row = {key: _plain(value) for key, value in row.items()}
        if self._writes:
            _append(self.path, f"{json.dumps(row)}\n".encode())
        self.rows.append(row)
        numbers = {key: value for key, value in row.items() if isinstance(value, float)}
        for name, logger in list(self._loggers.items()):
            self._told(name, partial(logger.row, row["step"], numbers))
        return row

    def _told(self, name: str, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:  # a service that is down costs no training
            warnings.warn(f"{name} failed ({error}): the rows are in {self.path} alone from now on", stacklevel=4)
            del self._loggers[name]

    def find(self, step: int, key: str) -> Row | None:
        """The row of `step` that has `key`, when it is there already: `lr` tells rows of losses, AP of evaluations."""
        return next((row for row in self.rows if row["step"] == step and key in row), None)


def read_rows(path: Path, last_step: int | None = None) -> list[Row]:
    """Rows of a metrics.jsonl up to `last_step` (all without it); none when there is no file.

    A line that is no JSON object with a step, as a power cut may leave at the end, is left out.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        is_row = isinstance(row, dict) and isinstance(row.get("step"), int)
        if is_row and (last_step is None or row["step"] <= last_step):
            rows.append(row)
    return rows


def _append(path: Path, line: bytes) -> None:
    with open(path, "ab", buffering=0) as file:
        before = file.tell()
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            file.truncate(before)
            reason = f"cannot write ({error.strerror}): free space and continue with --resume"
            raise OSError(error.errno, reason, str(path)) from None


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Bar(Progress):
    """A bar, and below it what is known of the last steps, which beside it would squeeze it out of narrow windows."""

    details = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.details:
            yield Text(self.details, style="dim")


class ProgressReport:
    """One bar over all steps with ETA on a terminal; elsewhere a line at most every `seconds`."""

    def __init__(self, steps: int, done: int = 0, console: Console | None = None, seconds: float = 15.0) -> None:
        self.console = console or Console()
        self._steps = steps
        self._seconds = seconds
        self._last_line = -math.inf
        self._started, self._first = time.monotonic(), done
        self._bar: _Bar | None = None
        if self.console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = _Bar(*columns, console=self.console)
            self._task: TaskID = self._bar.add_task("", total=steps, completed=done)

    def __enter__(self) -> "ProgressReport":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def row(self, row: Row) -> None:
        """Show a training row: below the bar, or as a line when one is due."""
        text = " ".join(f"{key} {value:.4g}" for key, value in row.items() if key == "lr" or key.startswith("loss"))
        if self._bar is not None:
            self._bar.details = f"epoch {row['epoch']} {text}"
            self._bar.refresh()
            return
        now = time.monotonic()
        if now - self._last_line >= self._seconds or row["step"] >= self._steps:
            self._last_line = now
            done = row["step"] - self._first
            left = (now - self._started) / max(done, 1) * (self._steps - row["step"])
            self.say(f"step {row['step']}/{self._steps} epoch {row['epoch']} {text} ETA {_clock(left)}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
