"""Loader workers that are killed, stopped or out of memory: an error within seconds, and no process is left."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from detkit.data.coco import CocoIndex, load_coco
from detkit.data.dataset import DetectionDataset
from detkit.data.layout import find_layout
from detkit.data.loader import EpochLoader
from detkit.data.workers import _dead

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def index(shapes: Path, tmp_path: Path) -> CocoIndex:
    """The pictures of Shapes in a folder of their own, to be spoilt."""
    train, _ = find_layout(shapes)
    shutil.copytree(train.images, tmp_path / "pictures")
    return replace(load_coco(train.annotations, train.images), images=tmp_path / "pictures")


def loader(index: CocoIndex, workers: int = 2, timeout: float = 0.0) -> EpochLoader:
    return EpochLoader(
        DetectionDataset(index, [64], 128), 1, shuffle=False, group_by_aspect=False,
        workers=workers, worker_timeout=timeout,
    )  # fmt: skip


def pipe(path: Path) -> None:
    """Whoever reads this file waits for ever."""
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(("signum", "advice"), [(signal.SIGKILL, "memory"), (signal.SIGBUS, "/dev/shm")])
def test_a_killed_worker_is_named_within_seconds(signum: signal.Signals, advice: str, index: CocoIndex) -> None:
    others = set(multiprocessing.active_children())
    batches = loader(index).epoch(0)
    next(batches)
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    victim = min(worker.pid or 0 for worker in workers)
    os.kill(victim, signum)
    started = time.monotonic()
    with pytest.raises(ChildProcessError, match=rf"process {victim}\) was killed by {signum.name}; .*{advice}"):
        list(batches)
    assert time.monotonic() - started < 30  # where it dumps a core, the system takes its time
    assert not any(worker.is_alive() for worker in workers)


def slow_end() -> None:
    """Break all connections, as the system does with a process that was killed, and be gone later."""
    os.closerange(3, 1024)
    time.sleep(0.5)
    os._exit(3)


def test_a_worker_is_waited_for_when_only_its_connections_are_gone() -> None:
    process = multiprocessing.get_context("fork").Process(target=slow_end)
    process.start()
    assert _dead({process}, patience=20) is process
    assert process.exitcode == 3


def test_a_worker_that_dies_interrupts_no_step(index: CocoIndex) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    batches = loader(index).epoch(0)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) is before  # torch's handler would raise wherever the program is
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["stopped process", "endless read"])
def test_a_worker_that_hangs_is_an_error_after_the_timeout(how: str, index: CocoIndex) -> None:
    others = set(multiprocessing.active_children())
    if how == "endless read":
        pipe(index.path(10))
    batches = loader(index, timeout=3).epoch(0)
    next(batches)
    workers = set(multiprocessing.active_children()) - others
    if how == "stopped process":
        for worker in workers:
            os.kill(worker.pid or 0, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"2 loader workers for 3 seconds.*data\.worker_timeout"):
        list(batches)
    assert time.monotonic() - started < 10
    assert not any(worker.is_alive() for worker in workers)


SMALL_SHM = """
import sys
from pathlib import Path
from detkit.data.coco import load_coco
from detkit.data.dataset import DetectionDataset
from detkit.data.layout import find_layout
from detkit.data.loader import EpochLoader
train, _ = find_layout(Path(sys.argv[1]))
data = DetectionDataset(load_coco(train.annotations, train.images), [1000], 1000)
try:
    list(EpochLoader(data, 4, shuffle=False, workers=2).epoch(0))
except MemoryError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small /dev/shm needs root")
def test_full_shared_memory_says_what_to_do(shapes: Path) -> None:
    mounted = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mounted, "sh", sys.executable, "-c", SMALL_SHM, str(shapes)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert run.stdout.startswith("refused: the shared memory"), run.stderr
    assert "--shm-size" in run.stdout and "data.workers" in run.stdout


LIMIT = """
import resource
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 800_000_000,) * 2)
try:
"""
SMALL_MEMORY = SMALL_SHM.replace("try:\n", LIMIT).replace("[1000], 1000", "[20_000], 20_000")
SMALL_MEMORY = SMALL_MEMORY.replace("workers=2", "workers=int(sys.argv[2]), skip_unreadable=True")


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_that_runs_out_when_reading_names_the_picture(workers: int, shapes: Path) -> None:
    """20,000 x 20,000 px take 1.2 GB; that stops the run also where bad pictures may be skipped."""
    command = [sys.executable, "-c", SMALL_MEMORY, str(shapes), str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=50, env=environment)
    assert run.stdout.startswith("refused: out of memory when "), run.stderr
    assert "train.batch_size" in run.stdout and "data.short_side" in run.stdout
