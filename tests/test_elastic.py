"""Processes that die: the others end with one clear line, and started again they end with the same bits."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from detkit.engine.checkpoint import load_checkpoint
from detkit.engine.log import read_rows
from tests.conftest import RANKED_RUN
from tests.processes import Process, environment, finished, ranks, started
from tests.tiny_run import assert_same_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def wait_for_rows(folder: Path, rows: int, processes: list[Process]) -> None:
    deadline = time.monotonic() + 150
    while len(read_rows(folder / "metrics.jsonl")) < rows:
        assert time.monotonic() < deadline, "the run did not come so far"
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_the_other_and_resumed_the_run_has_the_same_bits(
    killed: int, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with ranks(RANKED_RUN, folder, "--seconds", 0.1) as processes:
        wait_for_rows(folder, 3, processes)
        processes[killed].send_signal(signal.SIGKILL)
        died = time.monotonic()
        status, _, errors = finished([processes[1 - killed]], timeout=30)[0]
        assert time.monotonic() - died < 10
    assert status == 1
    lines = [line for line in errors.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert f"rank {1 - killed} of 2: another process died or did not answer in time" in lines[0]
    assert "Traceback" not in errors
    assert 0 < load_checkpoint(folder / "last.pth")["training"]["step"] < 9
    with ranks(RANKED_RUN, folder, "--resume") as processes:
        assert [status for status, _, _ in finished(processes, timeout=60)] == [0, 0]
    assert_same_run(folder, undisturbed)


def test_a_rank_that_hangs_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with ranks(RANKED_RUN, folder, "--seconds", 0.1, "--timeout", 3) as processes:
        wait_for_rows(folder, 1, processes)
        processes[1].send_signal(signal.SIGSTOP)
        status, _, errors = finished(processes[:1], timeout=60)[0]
    assert status == 1
    assert "error: rank 0 of 2: another process died or did not answer in time" in errors


def test_a_rank_that_never_comes_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    alone = environment(RANK=0, LOCAL_RANK=0, WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=0)
    with started([sys.executable, RANKED_RUN, tmp_path / "run", "--timeout", 2], environments=[alone]) as processes:
        status, _, errors = finished(processes, timeout=60)[0]
    assert status == 1
    assert "error: rank 0 of 2: not all processes came together within 2 s" in errors


def test_another_number_of_processes_is_refused(undisturbed: Path) -> None:
    with ranks(RANKED_RUN, undisturbed, "--resume", size=1) as processes:
        status, _, errors = finished(processes, timeout=60)[0]
    assert status == 2
    assert "the number of processes: 2 -> 1" in errors


def torchrun(*arguments: object) -> list[object]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, *arguments]


def test_torchrun_starts_a_run_again_in_its_folder_and_it_ends_with_the_same_bits(
    undisturbed: Path, tmp_path: Path
) -> None:
    """Without --resume, although the folder of the name that was asked for is another's."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("a user's")
    command = torchrun("--max-restarts", 1, RANKED_RUN, tmp_path / "run", "--dies-at", 8)
    with started(command, environments=[environment()]) as processes:
        status, output, errors = finished(processes, timeout=150)[0]
    assert status == 0, output + errors
    assert errors.count("rank 1 kills itself") == 1
    assert "terminate called" not in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2"]
    assert_same_run(tmp_path / "run-2", undisturbed)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun_ends_in_a_checkpoint(signum: signal.Signals, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with started(torchrun(RANKED_RUN, folder, "--seconds", 0.2), environments=[environment()]) as processes:
        wait_for_rows(folder, 1, processes)
        os.kill(processes[0].pid, signum)
        status, output, errors = finished(processes, timeout=90)[0]
    assert status != 0
    assert output.count(f"stopped by {signum.name} after step") == 1, output + errors
    assert "go on with --resume" in output and "terminate called" not in errors
    with ranks(RANKED_RUN, folder, "--resume") as processes:
        assert [status for status, _, _ in finished(processes, timeout=90)] == [0, 0]
    assert_same_run(folder, undisturbed)
