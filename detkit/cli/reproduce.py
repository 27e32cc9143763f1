"""`detkit reproduce CONFIG`: does the same training twice give the same bits?"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from detkit.cli.errors import Debug, Overrides, run_command
from detkit.cli.output import say
from detkit.config import load_config
from detkit.engine.fingerprints import Fingerprints, fingerprint_run


def reproduce(
    config: Annotated[str, typer.Argument(help="A config file, or the name of one of detkit's: fpn_r50, ...")],
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of each run.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Train a few steps twice, deterministically and in processes of their own, and compare every bit.

    Exit status 1: they differ; the first tensor and the first row that do are named.
    """
    console = Console(stderr=as_json)
    load_config(config, overrides or [])  # a mistake in it is one line here, not two processes later
    with tempfile.TemporaryDirectory(prefix="detkit-reproduce-") as scratch:
        runs = [Path(scratch) / name for name in ("first", "second")]
        for run in runs:
            say(console, f"{run.name} run of {steps} steps")
            _train(config, [*(overrides or []), *_settings(run, steps)])
        first, second = (fingerprint_run(run) for run in runs)
    differing = differences(first, second)
    if as_json:
        report = {"same": not differing, "differing": differing, "first": first, "second": second}
        typer.echo(json.dumps(report, indent=2))
    else:
        console.print(_table(first, second))
        say(console, f"{len(differing)} differ, first {differing[0]}" if differing else "the same to the last bit")
    raise typer.Exit(1 if differing else 0)


def _settings(run: Path, steps: int) -> list[str]:
    """Overrides that come last and win: a fresh folder, all rows, deterministic operators."""
    return [
        *(f"train.output={run}", f"train.iterations={steps}", "train.deterministic=true"),
        *("train.log_every=1", "train.checkpoint_minutes=0"),
    ]


def _train(config: str, overrides: Sequence[str]) -> None:
    """`detkit train` as a process. Raises ValueError, with what it said last, when it fails."""
    command = [sys.executable, "-m", "detkit", "train", config, *overrides]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode < 0 or done.returncode in (130, 143):
        raise KeyboardInterrupt
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ValueError(f"the training failed: {said[-1].removeprefix('error: ')}")


def differences(first: Fingerprints, second: Fingerprints) -> list[str]:
    """Names, as `part: tensor or row`, whose hashes differ or that one of the two lacks."""
    found = []
    for part in dict.fromkeys([*first, *second]):
        one, other = first.get(part, {}), second.get(part, {})
        names = dict.fromkeys([*one, *other])
        found += [f"{part}: {name}" for name in names if one.get(name) != other.get(name)]
    return found


def _table(first: Fingerprints, second: Fingerprints) -> Table:
    """A row for each part: how many hashes, the joined one of both runs, how many differ."""
    table = Table("part", "tensors or rows", "first run", "second run", "differ")
    for part in dict.fromkeys([*first, *second]):
        one, other = first.get(part, {}), second.get(part, {})
        differing = len(differences({part: one}, {part: other}))
        table.add_row(part, str(len(one)), _joined(one), _joined(other), str(differing) if differing else "no")
    return table


def _joined(hashes: dict[str, str]) -> str:
    """Twelve letters that stand for all of them."""
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:12]


def main() -> None:
    """The command as a program of its own."""
    run_command(reproduce)
