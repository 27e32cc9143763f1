"""The most memory that a process holds, in inference and in training, detkit against torchvision."""

import gc
import json as json_lib
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from inference import build_sides as inference_sides
from measure import Json, Quick, Row, report
from training_step import build_sides as training_sides

from detkit.cli.errors import run_command

SIDES = ("detkit", "torchvision")
SIZES = {"inference": (1, (800, 1088)), "training step": (4, (256, 320))}
QUICK = {"inference": (1, (96, 128)), "training step": (2, (64, 96))}


def main(
    quick: Quick = False, json: Json = None,
    side: Annotated[str | None, typer.Option(hidden=True)] = None,
    work: Annotated[str, typer.Option(hidden=True)] = "inference",
) -> None:  # fmt: skip
    """Run each side in a process of its own and compare the largest resident sizes."""
    if side is not None:
        if side not in SIDES:
            raise ValueError(f"--side: expected {' or '.join(SIDES)}, got {side!r}")
        print(json_lib.dumps(peak(work, side, quick)))
        return
    rows = []
    for work, (count, size) in (QUICK if quick else SIZES).items():
        ours, theirs = (in_own_process(work, side, quick) for side in SIDES)
        rows.append(
            Row(f"peak memory, {work} {count}x{size[0]}x{size[1]}, float32", f"{ours:.0f} MB", f"{theirs:.0f} MB",
                theirs / ours, 1.0, None, "of the whole process")
        )  # fmt: skip
    report(rows, json)


def in_own_process(work: str, side: str, quick: bool) -> float:
    """MB, of a fresh interpreter."""
    command = [sys.executable, __file__, "--side", side, "--work", work, *(["--quick"] if quick else [])]
    return json_lib.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def peak(work: str, side: str, quick: bool) -> float:
    """MB that this process holds at most, over three runs of a side."""
    count, size = (QUICK if quick else SIZES)[work]
    ours: Callable[[], object]
    theirs: Callable[[], object]
    if work == "inference":
        ours, theirs = inference_sides(size, "float32", quick)
    else:
        ours, theirs, _ = training_sides(count, size, "float32", quick)
    run = ours if side == "detkit" else theirs
    del ours, theirs
    gc.collect()  # the other side's model
    for _ in range(3):
        run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    run_command(main)
