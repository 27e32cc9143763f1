"""The tiny run of tests/tiny_run.py as one process of several, to be started by torchrun, killed and started again.

python tests/ranked_run.py OUTPUT [--seconds BATCH_SECONDS] [--resume] [--dies-at BATCH] [--timeout SECONDS]: rank 1
kills itself at batch BATCH of the first attempt. It works in the folder MACHINE when that variable is set, and saves
after each step.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from detkit.cli.errors import run_command
from detkit.engine.distributed import World, joined, world_from_environment
from detkit.engine.replicas import enter_run, find_run
from detkit.engine.resume import resumed_state
from detkit.engine.run import new_run_folder
from tests.ranks import RankLoader
from tests.tiny_run import build_trainer

CONFIG = {"tiny": True}


def train(output: Path, seconds: float = 0.0, resume: bool = False, dies_at: int = -1, timeout: float = 20.0) -> None:
    torch.set_num_threads(1)
    os.chdir(os.environ.get("MACHINE", "."))
    world = world_from_environment()
    with joined(world, timeout):
        found = find_run(output, resume, world)
        with world.together():
            if found is not None:
                resumed_state(found, CONFIG, "", (), world.size)  # refuses another number of processes
        folder = found or new_run_folder(output, world)
        owner = enter_run(folder, world)
        loader = RankLoader(world, lambda epoch, index: pause(world, 5 * epoch + index, seconds, dies_at))
        extra = {"processes": world.size, "data": ""}
        build_trainer(folder, loader, world=world, owner=owner, extra=extra, checkpoint_minutes=1e-6).run()


def pause(world: World, batch: int, seconds: float, dies_at: int) -> None:
    time.sleep(seconds)
    if world.rank == 1 and batch == dies_at and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        print("rank 1 kills itself", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run_command(train)
