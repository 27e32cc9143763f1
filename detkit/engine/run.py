"""The run folder: a fresh one for each run, which explains itself."""

import os
import platform
import subprocess
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch

from detkit.files import write_json

METRICS = "metrics.jsonl"


def new_run_folder(output: str | Path) -> Path:
    """Create and return `output`, or the next free one of output-2, output-3, ...

    An empty folder that is there is taken. Two runs that start at once get different folders: the first to
    create metrics.jsonl owns the folder. Raises ValueError when the folder cannot be made or written.
    """
    output = Path(output)
    numbered = (output.with_name(f"{output.name}-{number}") for number in count(2))
    for folder in chain([output], numbered):
        try:
            if _claim(folder):
                return folder
        except OSError as error:
            raise ValueError(
                f"cannot write the run folder {folder} ({error.strerror}); set train.output to a folder you may write"
            ) from error
    raise AssertionError("unreachable: the numbers do not end")


def _claim(folder: Path) -> bool:
    """Whether `folder` is now ours: new or empty until this call."""
    if os.path.lexists(folder) and not folder.is_dir():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        return False
    try:
        (folder / METRICS).open("x").close()
    except FileExistsError:
        return False
    return True


def describe_run(folder: Path, config: dict[str, Any], classes: list[str], command: list[str]) -> None:
    """Write config.json, classes.json and environment.json (versions, machine, git state, command)."""
    write_json(folder / "config.json", config)
    write_json(folder / "classes.json", classes)
    write_json(folder / "environment.json", {"command": command, **environment()})


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
