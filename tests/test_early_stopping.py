"""Early stopping: after how many evaluations a run ends, what it leaves, and that a resumed one ends there too."""

import math
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from detkit.engine.checkpoint import load_checkpoint
from detkit.engine.signals import Stopped
from detkit.engine.step import StepResult
from detkit.types import Batch
from tests.test_train_loop import Interrupted
from tests.tiny_run import assert_same_run, build_trainer, rows

# An epoch is three steps: the best comes at step 9, an equal one at step 12.
SCORES = {3: 0.2, 6: 0.1, 9: 0.5, 12: 0.5, 15: 0.4, 18: 0.3, 21: 0.6}


def scored(module: nn.Module, step: int) -> dict[str, float]:
    return {"AP": SCORES[step]}


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({"patience": 0}, 21),
        ({"patience": 1}, 6),  # 0.1 is no better than 0.2
        ({"patience": 2}, 15),  # 0.5 and 0.4 are no better than 0.5
        ({"patience": 3}, 18),
        ({"patience": 4}, 21),  # in time
        ({"patience": 1, "eval_every": 2}, 18),  # 0.1, 0.5, 0.3 at steps 6, 12, 18
        ({"patience": 1, "eval_every": 0}, 21),
    ],
)
def test_the_run_ends_where_patience_does(settings: dict[str, Any], end: int, tmp_path: Path) -> None:
    result = build_trainer(tmp_path, steps=21, evaluate=scored, save_every=0, **settings).run()
    assert result.step == end
    assert result.best == max(row["AP"] for row in rows(tmp_path) if "AP" in row)
    assert load_checkpoint(tmp_path / "last.pth")["training"]["step"] == end


@pytest.mark.parametrize("save_every", [1, 0])
@pytest.mark.parametrize("at", [1, 3, 9, 14])
def test_a_resumed_run_ends_at_the_same_step(at: int, save_every: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 21, "evaluate": scored, "patience": 2, "save_every": save_every}
    build_trainer(tmp_path / "whole", **settings).run()
    with pytest.raises(Stopped):
        build_trainer(tmp_path / "cut", Interrupted(at, signal.SIGTERM), **settings).run()
    assert build_trainer(tmp_path / "cut", **settings).run().step == 15
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    before = rows(tmp_path / "cut")
    assert build_trainer(tmp_path / "cut", **settings).run().step == 15  # once ended, it stays so
    assert rows(tmp_path / "cut") == before


def test_the_steps_since_the_last_row_have_one_too(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, steps=21, evaluate=scored, patience=2)
    losses: list[float] = []
    trainer._stepper.step = kept(trainer._stepper.step, losses)  # type: ignore[method-assign]
    trainer.run()
    written = [row for row in rows(tmp_path) if "lr" in row]
    assert [row["step"] for row in written] == [2, 4, 6, 8, 10, 12, 14, 15]
    assert written[-1]["loss"] == losses[-1]
    assert written[-2]["loss"] == pytest.approx((losses[-2] + losses[-3]) / 2)
    assert written[-2]["lr"] > written[-1]["lr"] > 0


def kept(step: Callable[..., StepResult], losses: list[float]) -> Callable[..., StepResult]:
    """A step whose loss is kept."""

    def stepped(batches: Sequence[Batch], number: int) -> StepResult:
        result = step(batches, number)
        losses.append(result.losses["loss"])
        return result

    return stepped


def test_without_any_score_patience_counts_from_the_start(tmp_path: Path) -> None:
    result = build_trainer(tmp_path, steps=21, evaluate=lambda module, step: {"AP": math.nan}, patience=2).run()
    assert (result.step, result.best) == (6, None)


def test_each_part_of_an_epoch_is_announced(tmp_path: Path) -> None:
    epochs: list[int] = []
    with pytest.raises(Stopped):
        build_trainer(tmp_path, Interrupted(4, signal.SIGTERM), start_epoch=epochs.append).run()
    build_trainer(tmp_path, start_epoch=epochs.append).run()
    assert epochs == [0, 1, 1, 2]
