"""Two sides that take turns, their medians, and whether they agree: what all benchmarks share.

Figures on a shared machine move by 10 to 30 % from run to run, so only ratios of alternating runs are compared.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from detkit.backbones.base import MIN_SIDE
from detkit.cli.output import refuse_existing
from detkit.files import write_json

Quick = Annotated[bool, typer.Option("--quick", help="Tiny sizes: that it works and that outputs agree.")]
Runs = Annotated[int, typer.Option(min=1, help="Timed runs of each side.")]
Count = Annotated[int, typer.Option(min=1)]
Side = Annotated[int, typer.Option(min=MIN_SIDE, help="px")]


def new_file(path: Path | None) -> Path | None:
    """The path, before hours of work. Raises ValueError where there is something already, or no folder for it."""
    refuse_existing(path)
    if path is not None and not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.absolute().parent}")
    return path


Json = Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.", callback=new_file)]
Output = Annotated[Path | None, typer.Option(help="Also write the table to this file.", callback=new_file)]


@dataclass(frozen=True)
class Row:
    """A line of the table. `goal` is for `ratio`, which is better when larger; `agrees` is None without a twin."""

    work: str
    ours: str
    theirs: str
    ratio: float | None
    goal: float | None
    agrees: bool | None
    note: str = ""

    def cells(self) -> list[str]:
        """The line as text."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        agrees = {True: "yes", False: "NO", None: "–"}[self.agrees]
        goal = "" if self.goal is None else f"{self.goal:g}"
        return [self.work, self.ours, self.theirs, ratio, goal, agrees, self.note]


HEADERS = ("work", "detkit", "against", "ratio", "goal", "outputs agree", "note")


def alternate(sides: Mapping[str, Callable[[], object]], runs: int, warmup: int = 1) -> dict[str, float]:
    """The median of the seconds that each side takes; one run of each in turn, `warmup` rounds not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warmup + runs):
        for name, work in sides.items():
            started = time.perf_counter()
            work()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(rows: list[Row], json_file: Path | None) -> None:
    """Print the rows, and write them for programs; exit status 1 when outputs do not agree."""
    table = Table(*HEADERS)
    for row in rows:
        table.add_row(*row.cells())
    console = Console()
    Console(width=max(console.width, 160)).print(table)
    if json_file is not None:
        write_json(json_file, [asdict(row) for row in rows])
    if any(row.agrees is False for row in rows):
        raise SystemExit(1)


def machine() -> str:
    """Processor, threads and versions in a line."""
    names = ("torch", "torchvision", "numpy", "pycocotools", "hotcoco", "msgspec")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{_processor()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, {capability}; {versions}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.machine()
