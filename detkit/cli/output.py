"""Lines that commands print."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from detkit.config import TrainConfig
from detkit.convolution import has_fast_convolutions
from detkit.engine.distributed import World
from detkit.engine.schedule import scaled_lr
from detkit.weights import LoadReport

ALONE = Path("-")  # --json -: what it has, and nothing else, is printed


def say(console: Console, text: str) -> None:
    """Print a line as it is: a path may hold what looks like markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_choice(console: Console, model: nn.Module, device: torch.device, precision: str, why: str) -> None:
    """Print on what a command computes, in which precision, and why."""
    own = device.type == "cpu" and precision == "float32" and has_fast_convolutions(model)
    more = "; 3x3 convolutions by detkit: it has no AVX-512 (model.fast_convolutions)" if own else ""
    say(console, f"device {device}, {precision}: {why}{more}")


def print_report(console: Console, report: LoadReport, title: str) -> None:
    """Print how many tensors of a file were loaded, and what became of the others."""
    table = Table("tensors", "number", "such as", title=escape(title))
    for kind, number, names in report.rows():
        table.add_row(kind, str(number), names)
    console.print(table)
    for warning in report.warnings:
        say(console, f"warning: {warning}")


def print_plan(console: Console, options: TrainConfig, steps: int, folder: Path, world: World) -> None:
    """Print how many steps of how many pictures a run takes, at which learning rate, and where it writes."""
    pictures = options.batch_size * options.accumulate * world.size
    lr = scaled_lr(options.lr, options.batch_size, options.accumulate, world.size)
    shared = f" on {world.size} processes" if world.size > 1 else ""
    say(
        console,
        f"{steps} steps of {pictures} pictures{shared}, lr {lr:.3g} ({options.lr:.3g} for 16 pictures a step), "
        f"run folder {folder}",
    )


def print_skipped(console: Console, skipped: Mapping[str, str], world: World) -> None:
    """Print the names of the pictures that any rank left out, if there are some."""
    names = sorted({name for part in world.gather(list(skipped)) or [] for name in part})
    if names:
        say(console, f"{len(names)} unreadable pictures were left out: {', '.join(names)}")


def refuse_same(options: str, *files: Path | None) -> None:
    """Raises ValueError, which names the options, where two of their files are one."""
    named = [file.resolve() for file in files if file is not None]
    if len(set(named)) < len(named):
        raise ValueError(f"{options} must name different files")


def refuse_existing(*files: Path | None) -> None:
    """Raises ValueError, before any work is done, for a file that is there already or whose folder cannot be made."""
    for file in files:
        if file is None:
            continue
        if file == ALONE:
            raise ValueError("expected the name of a file to write, got -; only --json prints what it has")
        if file.exists():
            raise ValueError(f"{file} exists already and is not overwritten: give another name or remove it")
        nearest = next(parent for parent in file.absolute().parents if parent.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            reason = "allows no new files" if nearest.is_dir() else "is a file, and a folder is needed"
            raise ValueError(f"{file} cannot be written: {nearest} {reason}; give another name")
