"""When and where a run's checkpoints are written."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detkit.engine.checkpoint import BEST, LAST, PREVIOUS, save_checkpoint
from detkit.engine.state import RunState


@dataclass
class Saver:
    """Writes the checkpoints of `state` to `folder`, with `extra` in each; without `owner` it only notes the steps."""

    folder: Path
    state: RunState
    extra: dict[str, Any]
    owner: bool = True
    _step: int = field(init=False)  # that of the newest checkpoint; before the first step there is nothing to save
    _time: float = field(init=False)

    def __post_init__(self) -> None:
        self._step, self._time = self.state.step, time.monotonic()

    @property
    def minutes(self) -> float:
        """Since the newest checkpoint."""
        return (time.monotonic() - self._time) / 60

    def save(self) -> None:
        """Write last.pth, unless it has this step already. Raises OSError when it cannot be written."""
        if self._step == self.state.step:
            return
        if self.owner:
            content = {**self.extra, **self.state.weights(), "training": self.state.training()}
            save_checkpoint(self.folder / LAST, content, self.folder / PREVIOUS)
        self._step, self._time = self.state.step, time.monotonic()

    def save_best(self, metrics: dict[str, float]) -> None:
        """Write best.pth with the metrics of its weights."""
        if self.owner:
            evaluation = {"step": self.state.step, **metrics}
            save_checkpoint(self.folder / BEST, {**self.extra, **self.state.weights(), "evaluation": evaluation})
