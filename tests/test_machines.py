"""Two machines, each with an address and a disk of its own, train together; one is lost, and nothing with it."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from detkit.engine.checkpoint import load_checkpoint
from tests.namespaces import Machine, two_machines
from tests.processes import ROOT, Process, environment, finished, ranks, started
from tests.test_elastic import wait_for_rows
from tests.tiny_run import assert_same_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # on a busy machine torch alone takes long to start

PROGRAM = ROOT / "tests" / "ranked_run.py"
Pair = tuple[Machine, Machine]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that went through."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with ranks(PROGRAM, folder) as processes:
        assert [status for status, _, _ in finished(processes, timeout=120)] == [0, 0]
    return folder


@contextmanager
def torchruns(machines: Pair, disks: list[Path], *arguments: object) -> Iterator[list[Process]]:
    """torchrun on both machines; they find each other at the first one's address."""
    commands, variables = [], []
    for number, (machine, disk) in enumerate(zip(machines, disks, strict=True)):
        disk.mkdir(exist_ok=True)
        options = ("--nnodes", 2, "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-id", "job")
        endpoint = ("--rdzv-endpoint", f"{machines[0].address}:29400", "--local-addr", machine.address)
        hosts = ("--rdzv-conf", f"is_host={int(number == 0)}")  # no name leads to these addresses
        launcher = (sys.executable, "-m", "torch.distributed.run", *options, *endpoint)
        commands.append(machine.command(*launcher, *hosts, PROGRAM, "run", *arguments))
        variables.append(environment(MACHINE=disk, GLOO_SOCKET_IFNAME=machine.interface))
    with started(*commands, environments=variables) as processes:
        yield processes


@pytest.mark.parametrize(("how", "gone"), [("cut off", 0), ("killed", 1)])
def test_when_one_is_lost_the_other_stops_and_the_disk_that_is_left_goes_on(
    how: str, gone: int, whole: Path, tmp_path: Path
) -> None:
    disks = [tmp_path / "one", tmp_path / "two"]
    with two_machines() as machines, torchruns(machines, disks, "--seconds", 0.2, "--timeout", 15) as processes:
        wait_for_rows(disks[1] / "run", 2, processes)
        lost = time.monotonic()
        if how == "cut off":
            machines[1].cut_off()
        else:
            machines[1].kill()
        status, _, errors = finished(processes[:1], timeout=120)[0]
        took = time.monotonic() - lost
    assert status != 0
    assert "error: rank" in errors and "another process died or did not answer in time" in errors, errors
    assert took < 75
    steps = [load_checkpoint(disk / "run" / "last.pth")["training"]["step"] for disk in disks]
    assert 0 < min(steps) <= max(steps) < 9
    shutil.rmtree(disks[gone])
    with two_machines() as machines, torchruns(machines, disks, "--resume") as processes:
        for status, output, errors in finished(processes, timeout=150):
            assert status == 0, output + errors
    for disk in disks:
        assert_same_run(disk / "run", whole)
