"""Two machines, each with an address and a disk of its own, train together; one is lost, and nothing with it."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from detkit.engine.checkpoint import load_checkpoint
from tests.conftest import RANKED_RUN
from tests.namespaces import CABLE, Machine, Pair, two_machines
from tests.processes import Process, descendants, environment, finished, killed, started
from tests.test_elastic import wait_for_rows
from tests.tiny_run import assert_same_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

LOST = "another process died or did not answer in time"


@pytest.fixture
def machines() -> Iterator[Pair]:
    with two_machines() as pair:
        yield pair


@pytest.fixture
def disks(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "one", tmp_path / "two"


@contextmanager
def torchrun(here: Machine, first: Machine, disk: Path, *arguments: object, restarts: int = 0) -> Iterator[Process]:
    """torchrun on a machine, with one process that works on its disk; all meet at the first machine's address."""
    disk.mkdir(exist_ok=True)
    # No name leads to these addresses. A machine that is silent for 6 s counts as lost; torch's default is 15 s.
    conf = f"is_host={int(here == first)},keep_alive_interval=2"
    options = ("--nnodes", 2, "--nproc-per-node", 1, "--max-restarts", restarts, "--local-addr", here.address)
    meeting = ("--rdzv-backend", "c10d", "--rdzv-id", "job", "--rdzv-endpoint", f"{first.address}:29400")
    launcher = (sys.executable, "-m", "torch.distributed.run", *options, *meeting, "--rdzv-conf", conf)
    # Without the last one, torch 2.14 does not tell a newcomer where to meet after a restart (docs/distributed.md).
    variables = environment(MACHINE=disk, GLOO_SOCKET_IFNAME=CABLE, TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1)
    with started(here.command(*launcher, RANKED_RUN, "run", *arguments), environments=[variables]) as processes:
        yield processes[0]


@contextmanager
def both(machines: Pair, disks: tuple[Path, Path], *arguments: object, restarts: int = 0) -> Iterator[list[Process]]:
    first, second = machines
    with (
        torchrun(first, first, disks[0], *arguments, restarts=restarts) as one,
        torchrun(second, first, disks[1], *arguments, restarts=restarts) as two,
    ):
        yield [one, two]


def wait_for_ends(torchruns: list[Process], timeout: float) -> None:
    """Until none of them has a process left."""
    deadline = time.monotonic() + timeout
    while any(descendants(process.pid) for process in torchruns):
        assert time.monotonic() < deadline, "the processes go on without each other"
        time.sleep(0.1)


def test_cut_off_from_each_other_both_end_and_either_disk_is_enough(
    machines: Pair, disks: tuple[Path, Path], undisturbed: Path
) -> None:
    with both(machines, disks, "--seconds", 0.2, "--timeout", 10) as (one, two):
        wait_for_rows(disks[1] / "run", 2, [one, two])
        machines[1].cut_off()
        status, _, errors = finished([one], timeout=45)[0]
        wait_for_ends([two], timeout=45)  # its torchrun has lost the meeting place, and looks for it for minutes
        cut_off_errors = killed(two)[1]
    assert status == 1
    assert f"error: rank 0 of 2: {LOST}" in errors, errors
    assert f"error: rank 1 of 2: {LOST}" in cut_off_errors, cut_off_errors
    assert 0 < load_checkpoint(disks[1] / "run" / "last.pth")["training"]["step"] < 9

    shutil.rmtree(disks[0])  # with the folder that rank 0 wrote
    with two_machines() as others, both(others, disks, "--resume") as processes:
        for status, output, errors in finished(processes, timeout=90):
            assert status == 0, output + errors
    for disk in disks:
        assert_same_run(disk / "run", undisturbed)


def test_a_killed_machine_that_comes_back_with_an_empty_disk_is_waited_for(
    machines: Pair, disks: tuple[Path, Path], undisturbed: Path
) -> None:
    """Nobody says --resume: the torchrun that is left starts its process again as soon as it has company."""
    first, second = machines
    pace = ("--seconds", 0.2)
    with torchrun(first, first, disks[0], *pace, restarts=3) as left:
        with torchrun(second, first, disks[1], *pace, restarts=3) as lost:
            wait_for_rows(disks[1] / "run", 2, [left, lost])
            killed(lost)
        shutil.rmtree(disks[1])
        with torchrun(second, first, disks[1], *pace, restarts=3) as back:
            ends = finished([left, back], timeout=120)
    for status, output, errors in ends:
        assert status == 0, output + errors
    assert ends[0][2].count(LOST) == 1
    for disk in disks:
        assert [path.name for path in disk.iterdir()] == ["run"]
        assert_same_run(disk / "run", undisturbed)


def test_after_a_cable_was_out_for_a_while_the_run_goes_on_by_itself(
    machines: Pair, disks: tuple[Path, Path], undisturbed: Path
) -> None:
    with both(machines, disks, "--seconds", 0.2, "--timeout", 5, restarts=3) as (one, two):
        wait_for_rows(disks[1] / "run", 2, [one, two])
        machines[1].cut_off()
        wait_for_ends([one, two], timeout=60)
        machines[1].connect()
        ends = finished([one, two], timeout=120)
    for status, output, errors in ends:
        assert status == 0, output + errors
        assert errors.count(LOST) == 1
    for disk in disks:
        assert_same_run(disk / "run", undisturbed)
