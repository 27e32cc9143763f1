"""The real command under what happens at night: signals, a killed loader worker, a disk that fills up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import detkit.validation
from detkit.engine.checkpoint import load_checkpoint
from detkit.engine.log import read_rows
from detkit.engine.step import Stepper
from tests.conftest import TINY, Outcome
from tests.processes import ROOT, Process, descendants, environment, finished, started
from tests.test_resuming import assert_same_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@contextmanager
def running(shapes: Path, folder: Path, rows: int, *more: str) -> Iterator[Process]:
    """`python tools/train_det.py` with many steps, in the midst of its work: so many more steps are logged."""
    endless = ("train.iterations=4000", "train.eval_every=1000", "train.save_every=1000")
    settings = (*TINY, *endless, *more, f"data.root={shapes}", f"train.output={folder}", "--resume")
    last = (0, *steps(folder))[-1] + rows
    command = [sys.executable, ROOT / "tools" / "train_det.py", *settings]
    with started(command, environments=[environment()]) as (process,):
        deadline = time.monotonic() + 120
        while (0, *steps(folder))[-1] < last:
            assert time.monotonic() < deadline, "the run did not come so far"
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        yield process


def steps(folder: Path) -> list[int]:
    """Of the rows of losses."""
    return [row["step"] for row in read_rows(folder / "metrics.jsonl") if "lr" in row]


def saved_step(folder: Path) -> int:
    return int(load_checkpoint(folder / "last.pth")["training"]["step"])


def test_sigterm_ends_in_a_checkpoint(shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with running(shapes, folder, 2, "data.workers=2") as process:
        process.send_signal(signal.SIGTERM)
        status, output, errors = finished([process], timeout=60)[0]
    assert status == 143, errors
    assert "SIGTERM: finishing the step and saving" in errors
    step = saved_step(folder)
    assert f"stopped by SIGTERM after step {step} of 4000; saved {folder / 'last.pth'}: go on with --resume" in output
    assert steps(folder) == list(range(1, step + 1))


def test_a_killed_worker_ends_in_an_error_and_a_checkpoint(shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with running(shapes, folder, 1, "data.workers=2") as process:
        workers = descendants(process.pid)
        assert len(workers) == 2
        os.kill(workers[-1], signal.SIGKILL)
        killed = time.monotonic()
        status, _, errors = finished([process], timeout=60)[0]
        assert time.monotonic() - killed < 30
    assert status == 1, errors
    assert f"error: a loader worker (process {workers[-1]}" in errors and "SIGKILL" in errors
    assert "Traceback" not in errors
    assert steps(folder) == list(range(1, saved_step(folder) + 1))  # all that was done is saved


def test_a_second_sigint_stops_at_once(
    shapes: Path, tmp_path: Path, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both come between the forward and the backward pass of step 2, whatever the machine's speed."""
    backward, calls = torch.autograd.backward, list[object]()

    def interrupted(total: torch.Tensor) -> None:
        calls.append(total)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            calls.append("the first is only noted")
            os.kill(os.getpid(), signal.SIGINT)
            calls.append("not reached")
        backward(total)

    monkeypatch.setattr(torch.autograd, "backward", interrupted)
    folder = tmp_path / "run"
    stopped = command("train", *TINY, f"data.root={shapes}", f"train.output={folder}")
    assert stopped.status == 130 and calls[2:] == ["the first is only noted"]
    assert stopped.err.count("SIGINT: finishing the step and saving") == 1
    assert "Traceback" not in stopped.err and "saved" not in stopped.out
    assert not list(folder.glob("*.pth")) and len(steps(folder)) == 1  # the step was not finished


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 900 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root; tests/test_checkpoint.py fills the disk by RLIMIT_FSIZE")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=900m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> None:
    with open(disk / "filler", "wb", buffering=0) as filler, suppress(OSError):
        while filler.write(bytes(1 << 20)) == 1 << 20:
            pass


def filling_before(work: Callable[..., Any], disk: Path, at: int = 1) -> Callable[..., Any]:
    """`work`, before whose call number `at` the disk is full."""
    calls: list[int] = []

    def fill_and_work(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            fill(disk)
        return work(*arguments)

    return fill_and_work


@pytest.mark.filterwarnings("ignore:tensorboard failed")
def test_a_disk_that_fills_up_in_a_step_and_in_an_evaluation(
    shapes: Path, trained: Path, disk: Path, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time the last good checkpoint is intact; with room again the run ends as one that went through."""
    folder = disk / "run"
    options = (*TINY, f"data.root={shapes}", f"train.output={folder}", "--resume")
    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", filling_before(Stepper.step, disk, at=3))
        full = command("train", *options, "train.checkpoint_minutes=1e-9")
    assert full.status == 1, full.err
    assert "cannot write the checkpoint (No space left on device); the checkpoint before it is intact" in full.err
    assert saved_step(folder) == 2 and not list(folder.glob(".*.tmp"))

    (disk / "filler").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(detkit.validation, "sheet", filling_before(detkit.validation.sheet, disk))
        full = command("train", *options)
    assert full.status == 1, full.err
    assert "cannot write the picture (No space left on device)" in full.err and "sheet_0000004.jpg" in full.err
    assert saved_step(folder) == 4 and not list(folder.glob(".*.tmp"))

    (disk / "filler").unlink()
    done = command("train", *options)
    assert done.status == 0, done.err
    assert_same_run(folder, trained)
