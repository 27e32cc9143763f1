"""One run at a time in a folder: a second one is refused, and a killed one leaves the way free at once."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from detkit.engine.lock import sole_writer
from tests.processes import ROOT, descendants, environment, started
from tests.tiny_run import assert_same_run, build_trainer

pytestmark = pytest.mark.timeout(60)


@pytest.mark.slow
def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    build_trainer(tmp_path / "whole").run()
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, ROOT / "tests" / "tiny_run.py", folder, "2", "2"]  # seconds a batch, workers
    with started(command, environments=[environment()]) as (first,):
        deadline = time.monotonic() + 40
        while len(workers := descendants(first.pid)) < 2:
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        (folder / ".last.pth.tmp").write_bytes(b"what the first is writing")
        with pytest.raises(ValueError, match=r"another process is training in .*run: wait for its end"):
            build_trainer(folder).run()
        assert (folder / ".last.pth.tmp").exists()
        first.kill()
        first.wait(timeout=20)
        build_trainer(folder).run()  # its workers may still be there
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    assert not (folder / ".last.pth.tmp").exists()
    assert_same_run(folder, tmp_path / "whole")


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"cannot write the run folder \(No such file.*train\.output.*gone"),
        sole_writer(tmp_path / "gone"),
    ):
        pass
