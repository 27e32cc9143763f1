"""Stopped, crashed, killed and resumed: the run ends with the same bits as one that went through."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import detkit.files
from detkit.engine.checkpoint import load_checkpoint, save_checkpoint
from detkit.engine.log import read_rows
from detkit.engine.signals import Stopped
from detkit.types import Batch
from tests.tiny_run import TinyLoader, assert_same_run, build_trainer, evaluate, rows

STEPS = 9  # three epochs of 2 + 2 + 1 batches


class Interrupted(TinyLoader):
    """Fails, or sends this process a signal, while the first batch of step `at` (from 0) is fetched."""

    def __init__(self, at: int, signum: int | None) -> None:
        super().__init__()
        self.at, self.signum = at, signum

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        for offset, batch in enumerate(super().epoch(epoch, start)):
            if 2 * (self.at % 3) == start + offset and self.at // 3 == epoch:
                if self.signum is None:
                    raise RuntimeError("the power went out")
                os.kill(os.getpid(), self.signum)
            yield batch


@pytest.fixture(scope="module", params=[{}, {"kind": "adamw", "precision": "bfloat16", "clip_norm": 0.1}])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that went through, and its settings."""
    folder = tmp_path_factory.mktemp("whole")
    build_trainer(folder, **request.param).run()
    return folder, request.param


@pytest.mark.parametrize("at", range(STEPS))
def test_stopped_by_a_signal_and_resumed_is_the_same_run(
    at: int, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    reference, settings = whole
    before = signal.getsignal(signal.SIGTERM)
    trainer = build_trainer(tmp_path, **settings)
    sent: list[int] = []

    def interrupt(module: nn.Module, inputs: Any) -> None:
        if trainer.step == at and not sent:
            sent.append(at)
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.model.register_forward_pre_hook(interrupt)
    with pytest.raises(Stopped, match=f"SIGTERM after step {at + 1} of 9; saved") as stopped:
        trainer.run()
    assert stopped.value.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert load_checkpoint(tmp_path / "last.pth")["training"]["step"] == at + 1
    loader = TinyLoader()
    build_trainer(tmp_path, loader, **settings).run()
    assert_same_run(tmp_path, reference)
    assert len(loader.read) == 15 - 5 * ((at + 1) // 3) - 2 * ((at + 1) % 3)  # nothing skipped was read


@pytest.mark.parametrize("at", [0, 4, 6])
def test_stopped_while_it_waits_for_data(at: int, whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    reference, settings = whole
    with pytest.raises(Stopped, match=f"SIGINT after step {at} of 9; {'saved' if at else 'nothing'}"):
        build_trainer(tmp_path, Interrupted(at, signal.SIGINT), **settings).run()
    assert (tmp_path / "last.pth").exists() == (at > 0)
    build_trainer(tmp_path, **settings).run()
    assert_same_run(tmp_path, reference)


@pytest.mark.parametrize("at", range(STEPS))
def test_crashed_and_resumed_is_the_same_run(at: int, whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    reference, settings = whole
    with pytest.raises(RuntimeError, match="the power went out"):
        build_trainer(tmp_path, Interrupted(at, None), **settings).run()
    assert (tmp_path / "last.pth").exists() == (at >= 3)
    build_trainer(tmp_path, **settings).run()
    assert_same_run(tmp_path, reference)


def test_stopped_twice_in_an_evaluation_it_is_made_up_for(tmp_path: Path) -> None:
    build_trainer(tmp_path / "whole").run()
    calls = []

    def interrupted(module: nn.Module, step: int) -> dict[str, float]:
        calls.append(step)
        if len(calls) in (2, 3):
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(module, step)

    for _ in range(2):
        with pytest.raises(Stopped, match="SIGINT after step 6") as stopped:
            build_trainer(tmp_path / "stopped", evaluate=interrupted, save_every=0).run()
        assert stopped.value.exit_status == 130
    build_trainer(tmp_path / "stopped", evaluate=interrupted, save_every=0).run()
    assert calls == [3, 6, 6, 6, 9]
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_a_finished_run_resumed_only_repeats_its_result(tmp_path: Path) -> None:
    first = build_trainer(tmp_path).run()
    before = rows(tmp_path)
    again = build_trainer(tmp_path).run()
    assert (again.step, again.best, again.metrics["AP"]) == (9, first.best, first.metrics["AP"])
    assert rows(tmp_path) == before


def test_a_damaged_last_checkpoint_costs_one_epoch(tmp_path: Path) -> None:
    build_trainer(tmp_path / "whole").run()
    build_trainer(tmp_path / "hurt").run()
    last = tmp_path / "hurt" / "last.pth"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="continuing from"):
        trainer = build_trainer(tmp_path / "hurt")
    assert trainer.step == 6
    trainer.run()
    assert_same_run(tmp_path / "hurt", tmp_path / "whole")


def test_a_checkpoint_every_so_many_minutes(tmp_path: Path) -> None:
    """Three steps are an epoch, at whose end there is one anyway."""
    for name, minutes in (("often", 1e-9), ("seldom", 60.0), ("never", 0.0)):
        build_trainer(tmp_path / name, evaluate=None, steps=3, checkpoint_minutes=minutes).run()
        assert load_checkpoint(tmp_path / name / "last.pth")["training"]["step"] == 3
    assert load_checkpoint(tmp_path / "often" / "last.prev.pth")["training"]["step"] == 2
    assert not list(tmp_path.glob("[sn]e*/last.prev.pth"))


def test_float16_keeps_its_scale_through_a_resume(tmp_path: Path) -> None:
    build_trainer(tmp_path / "whole", precision="float16").run()
    with pytest.raises(Stopped):
        build_trainer(tmp_path / "cut", Interrupted(4, signal.SIGTERM), precision="float16").run()
    build_trainer(tmp_path / "cut", precision="float16").run()
    assert load_checkpoint(tmp_path / "cut" / "last.pth")["training"]["scaler"]["_growth_tracker"] > 0
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_what_cannot_be_resumed_says_why(tmp_path: Path) -> None:
    build_trainer(tmp_path).run()
    (tmp_path / "best.pth").replace(tmp_path / "last.pth")
    with pytest.raises(ValueError, match="no training state"):
        build_trainer(tmp_path)
    save_checkpoint(tmp_path / "last.pth", {**load_checkpoint(tmp_path / "last.prev.pth"), "training": 5})
    with pytest.raises(ValueError, match="no training state"):
        build_trainer(tmp_path)
    (tmp_path / "last.pth").unlink()
    with pytest.raises(ValueError, match="does not fit"):
        build_trainer(tmp_path, kind="adamw", precision="float16", accumulate=1)
    with pytest.raises(ValueError, match="ema_decay must lie"):
        build_trainer(tmp_path / "other", ema_decay=1.5)


def start(folder: Path, workers: int = 0) -> subprocess.Popen[str]:
    """The tiny run as a process in a group of its own, once its second step is logged."""
    command = [sys.executable, str(Path(__file__).with_name("tiny_run.py")), str(folder), "0.1", str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(Path(detkit.files.__file__).parents[1])}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not read_rows(folder / "metrics.jsonl"):
        assert time.monotonic() < deadline, "the run did not start"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(("signum", "workers"), [(signal.SIGTERM, 0), (signal.SIGINT, 2), (signal.SIGTERM, 2)])
def test_a_signal_to_the_whole_group_ends_in_a_checkpoint(signum: signal.Signals, workers: int, tmp_path: Path) -> None:
    process = start(tmp_path, workers)
    os.killpg(process.pid, signum)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signum, errors
    assert f"stopped by {signum.name}" in output
    assert load_checkpoint(tmp_path / "last.pth")["training"]["step"] >= 2
    build_trainer(tmp_path).run()
    build_trainer(tmp_path / "whole").run()
    assert_same_run(tmp_path, tmp_path / "whole")


def test_killed_outright_it_resumes_to_the_same_bits(tmp_path: Path) -> None:
    process = start(tmp_path)
    time.sleep(0.4)
    process.kill()
    process.communicate(timeout=30)
    build_trainer(tmp_path).run()
    build_trainer(tmp_path / "whole").run()
    assert_same_run(tmp_path, tmp_path / "whole")


def test_a_picture_that_turns_bad_costs_no_step(tmp_path: Path) -> None:
    class Damaged(TinyLoader):
        def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
            for number, batch in enumerate(super().epoch(epoch, start), start=start):
                if (epoch, number) == (0, 4):
                    raise ValueError("cannot read the picture 7.jpg")
                yield batch

    with pytest.raises(ValueError, match=r"7\.jpg"):
        build_trainer(tmp_path, Damaged()).run()
    assert load_checkpoint(tmp_path / "last.pth")["training"]["step"] == 2
    build_trainer(tmp_path).run()
    build_trainer(tmp_path / "whole").run()
    assert_same_run(tmp_path, tmp_path / "whole")
