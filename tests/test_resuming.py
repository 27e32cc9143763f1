"""The real detector on real loader workers: stopped between any two steps and resumed, it ends with the same bits."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detkit.engine.checkpoint import load_checkpoint
from detkit.engine.step import Stepper, StepResult
from detkit.types import Batch
from tests.conftest import TINY, Outcome, metric_rows
from tests.tiny_run import assert_same

Command = Callable[..., Outcome]

pytestmark = pytest.mark.timeout(240)

# 16 pictures, 2 a batch, 2 batches a step: 4 steps an epoch.
SETTINGS = (
    *TINY,
    "train.batch_size=2",
    "train.accumulate=2",
    "train.optimizer=adamw",
    "train.lr=0.001",
    "train.ema_decay=0.9",
    "data.colour=0.5",
    "train.log_every=3",
)


def run_of(shapes: Path, folder: Path, steps: int, *more: str) -> tuple[str, ...]:
    return (*SETTINGS, f"data.root={shapes}", f"train.output={folder}", f"train.iterations={steps}", *more)


@contextmanager
def signal_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """This process gets a SIGTERM in its step `steps`; gives the names of the pictures that it has learned from."""
    seen: list[str] = []
    taken = []
    step = Stepper.step

    def counted(self: Stepper, batches: Sequence[Batch], number: int) -> StepResult:
        taken.append(number)
        seen.extend(meta["file_name"] for batch in batches for meta in batch.metas)
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batches, number)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", counted)
        yield seen


def assert_same_run(folder: Path, reference: Path) -> None:
    """Weights, average, optimizer, schedule, best weights and rows to the last bit; the configs name other folders."""
    for name in ("last.pth", "best.pth"):
        mine, wanted = (load_checkpoint(run / name) for run in (folder, reference))
        assert mine.keys() == wanted.keys()
        for key in mine.keys() - {"config"}:
            assert_same(mine[key], wanted[key], f"{name} {key}")
    assert metric_rows(folder) == metric_rows(reference)
    assert scalars(folder) == scalars(reference)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's curves as (step, value), without those of the clock."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    timed = {"seconds_per_step", "data_seconds", "pictures_per_second", "evaluation_seconds"}
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in set(events.Tags()["scalars"]) - timed
    }


def test_resuming_in_an_epoch_reads_no_picture_twice(
    shapes: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("train", *run_of(shapes, tmp_path / "whole", 4)).status == 0
    arguments = run_of(shapes, tmp_path / "run", 4)
    with signal_after(2, monkeypatch) as seen:
        stopped = command("train", *arguments, "data.workers=1")
    assert stopped.status == 143 and "after step 2 of 4; saved" in stopped.out
    assert len(set(seen)) == 8
    before = {name: (shapes / "train2017" / name).read_bytes() for name in seen}
    try:
        for name in seen:
            (shapes / "train2017" / name).write_bytes(b"gone")
        assert command("train", *arguments, "--resume").status == 0
    finally:
        for name, content in before.items():
            (shapes / "train2017" / name).write_bytes(content)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "precision"), [(0, "float32"), (1, "float32"), (4, "bfloat16")])
def test_stopped_after_every_step(
    workers: int, precision: str, shapes: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    precise = f"train.precision={precision}"
    assert command("train", *run_of(shapes, tmp_path / "whole", 5, precise)).status == 0
    arguments = run_of(shapes, tmp_path / "run", 5, precise, f"data.workers={workers}")
    for step in range(1, 5):
        with signal_after(1, monkeypatch):
            stopped = command("train", *arguments, "--resume")
        assert stopped.status == 143 and f"after step {step} of 5; saved" in stopped.out
    assert command("train", *arguments, "--resume").status == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_another_run_is_resumed_only_on_demand(shapes: Path, tmp_path: Path, command: Command) -> None:
    arguments = run_of(shapes, tmp_path / "run", 2)
    first = command("train", *arguments, "--resume")
    assert first.status == 0 and "starting at step 0" in first.out
    other = (*run_of(shapes, tmp_path / "run", 3), "data.flip=0.25", "train.lr=0.002", "data.limit=12")
    refused = command("train", *other, "--resume")
    assert refused.status == 2
    differences = ("data.flip: 0.5 -> 0.25", "train.lr: 0.001 -> 0.002", "train.iterations: 2 -> 3", "annotations")
    for text in (*differences, "--resume-anyway"):
        assert text in refused.err
    done = command("train", *other, "--resume-anyway")
    assert done.status == 0, done.err
    for text in differences:
        assert text in done.out
    state = load_checkpoint(tmp_path / "run" / "last.pth")
    assert state["training"]["step"] == 3 and state["config"]["train"]["lr"] == 0.002
    assert {group["initial_lr"] for group in state["training"]["optimizer"]["param_groups"]} == {0.002 * 4 / 16}
    assert all(moments["step"] == 3 for moments in state["training"]["optimizer"]["state"].values())  # went on
