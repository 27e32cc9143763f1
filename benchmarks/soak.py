"""Kills a training run at random moments until it has survived so many, and compares it with one that was left alone.

    python benchmarks/soak.py [--tiny 100] [--detector 10] [--seed N]

`tiny`: a small net (tests/tiny_run.py) that saves after each step, so that kills often fall into the writing of files.
`detector`: `tools/train_det.py` on Shapes with ResNet-18 and two loader workers. Each attempt is a process of its own,
forked after the imports, that SIGKILL ends. After each kill every line of metrics.jsonl must be whole, and a
checkpoint, where there is one, readable; at the end the hashes of weights, optimizer, average and rows must be equal.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from rich.console import Console
from rich.table import Table

from detkit.cli.train import main as train_main
from detkit.data.shapes import draw_shapes
from detkit.engine.checkpoint import load_checkpoint, newest_checkpoint
from tests.conftest import TINY, metric_rows
from tests.tiny_run import TinyLoader, build_trainer

Job = Callable[[Path], None]
TIME_LIMIT = 300.0  # seconds after which an attempt that was not killed counts as hanging


@dataclass
class Survival:
    """What became of a run: how often it was killed, and how many of the kills left a half-written file."""

    kills: int = 0
    half_written: int = 0
    runs: int = 0


def tiny_job(folder: Path) -> None:
    """60 steps of some milliseconds; a checkpoint after each."""
    torch.set_num_threads(1)
    build_trainer(folder, TinyLoader(seconds=0.01), steps=60, checkpoint_minutes=1e-9).run()


def detector_job(shapes: Path) -> Job:
    """Eight steps of the real command, through the real loader, with accumulation and a moving average."""

    def job(folder: Path) -> None:
        torch.set_num_threads(1)
        options = (
            *("train.accumulate=2", "train.batch_size=2", "train.ema_decay=0.9", "train.iterations=8"),
            *("data.workers=2", "train.checkpoint_minutes=1e-9"),
        )
        sys.argv = ["train", *TINY, *options, f"data.root={shapes}", f"train.output={folder}", "--resume"]
        train_main()

    return job


def attempt(job: Job, folder: Path, seconds: float | None) -> bool:
    """Run `job`, killed after `seconds`; whether it came to its end. Raises RuntimeError when it failed or hangs."""

    def quietly() -> None:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            job(folder)

    process = multiprocessing.get_context("fork").Process(target=quietly)
    process.start()
    process.join(TIME_LIMIT if seconds is None else seconds)
    ended = not process.is_alive()
    process.kill()
    process.join()
    if process.exitcode != 0 and (ended or seconds is None):
        raise RuntimeError(f"the run in {folder} ended with {process.exitcode}")
    return ended


def check_files(folder: Path) -> None:
    """After a kill: whole lines, none twice, and the newest checkpoint readable without falling back on another."""
    metrics = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    places = [(row["step"], "AP" in row) for row in rows]
    if places != sorted(set(places)):
        raise RuntimeError(f"{metrics} repeats rows: {places}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        newest_checkpoint(folder)


def survive(job: Job, folder: Path, kills: int, longest: float, rng: random.Random) -> Survival:
    """Kill runs of `job` in new folders below `folder`, each attempt after up to `longest` seconds, and compare them.

    Raises RuntimeError when one does not end with the bits of a run that was left alone.
    """
    attempt(job, folder / "whole", None)
    wanted, found = fingerprint(folder / "whole"), Survival()
    while found.kills < kills:
        run = folder / f"killed-{found.runs}"
        while not attempt(job, run, rng.uniform(0, longest) if found.kills < kills else None):
            found.kills += 1
            found.half_written += any(run.glob(".*.tmp"))
            check_files(run)
        found.runs += 1
        if fingerprint(run) != wanted:
            raise RuntimeError(f"{run} differs from {folder / 'whole'}")
    return found


def fingerprint(folder: Path) -> str:
    """SHA-256 of all that a run computed: both checkpoints but for the config, and the rows without their times."""
    digest = hashlib.sha256()
    for name in ("last.pth", "best.pth"):
        state = load_checkpoint(folder / name)
        _feed(digest, {key: state[key] for key in sorted(state) if key != "config"})
    _feed(digest, metric_rows(folder))
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key, entry in value.items():
            digest.update(repr(key).encode())
            _feed(digest, entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            _feed(digest, entry)
    else:
        digest.update(repr(value).encode())


def main() -> None:
    """Soak both jobs and print what they survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", type=int, default=100, help="kills of the small net")
    parser.add_argument("--detector", type=int, default=10, help="kills of the detector")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    table = Table("run", "kills", "in the writing of a file", "runs", "same bits", "s", title=f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as work:
        draw_shapes(Path(work) / "shapes", train=16, val=8)
        jobs = {
            "tiny": (tiny_job, options.tiny, 2.0),
            "detector": (detector_job(Path(work) / "shapes"), options.detector, 10.0),
        }
        for name, (job, kills, longest) in ((name, job) for name, job in jobs.items() if job[1]):
            (Path(work) / name).mkdir()
            started = time.monotonic()
            found = survive(job, Path(work) / name, kills, longest, rng)
            counts = (found.kills, found.half_written, found.runs, "all")
            table.add_row(name, *map(str, counts), f"{time.monotonic() - started:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
