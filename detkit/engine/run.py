"""The run folder: a fresh one for each run, which explains itself."""

import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch

from detkit.engine.distributed import ALONE, World
from detkit.engine.readme import run_readme
from detkit.files import write_atomically, write_json

METRICS, LAUNCH = "metrics.jsonl", "launch.json"
DESCRIPTION = ("config.json", "classes.json", "environment.json", "README.md")


def new_run_folder(output: str | Path, world: World = ALONE) -> Path:
    """Create and return `output`, or the next one of output-2, output-3, ... that is free on the machines of all ranks.

    An empty folder that is there is taken. Two runs that start at once get different folders: the first to
    create metrics.jsonl owns the folder. Raises ValueError when the folder cannot be made or written.
    """
    output = Path(output)
    numbered = (output.with_name(f"{output.name}-{number}") for number in count(2))
    for folder in chain([output], numbered):
        with world.together():
            free = _attempt(_is_free, folder)
        if not world.all(free):
            continue
        with world.together():
            claimed = world.rank > 0 or _attempt(_claim, folder)
        if world.all(claimed):
            return folder
    raise AssertionError("unreachable: the numbers do not end")


def _attempt(look: Callable[[Path], bool], folder: Path) -> bool:
    try:
        return look(folder)
    except OSError as error:
        raise ValueError(
            f"cannot write the run folder {folder} ({error.strerror}); set train.output to a folder you may write"
        ) from error


def _is_free(folder: Path) -> bool:
    """Whether `folder` is not there yet, or empty."""
    return not any(folder.iterdir()) if folder.is_dir() else not os.path.lexists(folder)


def _claim(folder: Path) -> bool:
    """Whether `folder` is now ours: free until this call."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / METRICS).open("x").close()
    except FileExistsError:
        return False
    return True


def describe_run(
    folder: Path,
    config: dict[str, Any],
    classes: list[str],
    command: list[str],
    uses: Sequence[str] = (),
    processes: int = 1,
) -> None:
    """Write config.json, classes.json, environment.json (command, versions, machine, git state) and README.md.

    `command`: program and arguments as they were given. `uses`: command lines that take the run's checkpoints.
    """
    start = {"command": command, "folder": str(Path.cwd()), "processes": processes}
    for name, content in zip(DESCRIPTION[:-1], (config, classes, {**start, **environment()}), strict=True):
        write_json(folder / name, content)
    write_atomically(folder / DESCRIPTION[-1], run_readme(folder, command, uses, processes))


def environment() -> dict[str, Any]:
    """Versions and machine, for the run folder and for error reports."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "git": git_state(Path.cwd()),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and changed files of the checkout around `folder`; None when there is none or no git."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain")
    if commit is None:
        return None
    return {"commit": commit.strip(), "changed": (changes or "").splitlines()}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
