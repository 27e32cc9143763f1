"""`detkit profile CONFIG|CHECKPOINT`: where the time goes, by part, against the machine's matrix product."""

import dataclasses
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from detkit.backbones.base import MIN_SIDE
from detkit.build import build_detector, choose_device, choose_precision
from detkit.cli.errors import Debug, Overrides, run_command
from detkit.config import Config, config_from_dict, load_config, parse_overrides
from detkit.engine.signals import StopSignals
from detkit.memory import is_out_of_memory
from detkit.models.faster_rcnn import FasterRCNN
from detkit.predict import trained_detector
from detkit.profiling import Profile, profile_detector
from detkit.ready_made import PREFIX, open_checkpoint

MAX_SIDE = 32767  # px, of pictures that OpenCV resizes
CLASSES = 80  # of a config, which does not name them: COCO's number


def profile(
    source: Annotated[str, typer.Argument(help="A config, or the checkpoint of a detector (.pth or coco:NAME).")],
    overrides: Overrides = None,
    size: Annotated[str, typer.Option(help="Of the picture that the net sees: HEIGHTxWIDTH, px.")] = "800x1088",
    train: Annotated[bool, typer.Option("--train", help="A training step instead of prediction.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="Runs of which the median counts.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone instead of the table.")] = False,
    debug: Debug = False,
) -> None:
    """Show where the time of a picture or of a training step goes, and how close that is to what the machine allows."""
    pixels = parse_size(size)
    chosen = choose_device(device)
    config, model = _open(source, overrides or [])
    wanted = config.train.precision if train and precision == "auto" else precision
    dtype, why = choose_precision(wanted, chosen)
    if dtype == "float16" and not train:
        raise ValueError("--precision: expected auto, float32 or bfloat16 for prediction, got float16")
    with StopSignals() as signals, signals.immediate(), _memory_in_words(batch, size), _bar() as progress:
        task = progress.add_task("profiling", total=runs + 2)
        result = profile_detector(
            model, pixels, train=train, batch=batch, runs=runs, device=chosen, precision=dtype,
            resize=config.data.resize, progress=lambda: progress.advance(task),
        )  # fmt: skip
    if json_output:
        typer.echo(json.dumps(dataclasses.asdict(result), indent=2))
    else:
        Console().print(profile_table(result, source, why))


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of text such as 800x1088. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    sides = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(sides) < MIN_SIDE or max(sides) > MAX_SIDE:
        raise ValueError(
            f"--size: expected HEIGHTxWIDTH of {MIN_SIDE} to {MAX_SIDE} px a side, such as 800x1088, got {text!r}"
        )
    return sides


def profile_table(result: Profile, source: str, why: str) -> Table:
    """One row a part; the last is the whole."""
    what = "training step" if result.train else "prediction"
    where = f"{result.device} with {_count(result.threads, 'thread')}, torch {torch.__version__}"
    height, width = result.size
    table = Table(
        title=f"{what} of {source}, {result.batch} x {height}x{width}",
        caption=(
            f"median of {_count(result.runs, 'run')} on {where}\n"
            f"{result.precision}: {why}\n"
            f"peak: {result.peak:.0f} GFLOP/s, measured with a product of matrices\n"
            "MAC: multiply-adds of convolutions and products by definition"
        ),
    )
    table.add_column("part")
    for header in ("ms", "share", "MAC, G", "GFLOP/s", "of the peak"):
        table.add_column(header, justify="right")
    for part in result.parts:
        table.add_row(part.name, *_cells(part.seconds, part.multiply_adds, result))
    table.add_section()
    table.add_row("all", *_cells(result.seconds, result.multiply_adds, result))
    return table


def _cells(seconds: float, multiply_adds: int, result: Profile) -> list[str]:
    cells = [f"{1000 * seconds:.1f}", f"{100 * seconds / result.seconds:.1f} %"]
    if multiply_adds == 0:
        return [*cells, "", "", ""]
    rate = 2 * multiply_adds / seconds / 1e9
    billions = f"{multiply_adds / 1e9:.1f}" if multiply_adds >= 1e9 else f"{multiply_adds / 1e9:.2g}"
    return [*cells, billions, f"{rate:.0f}", f"{100 * rate / result.peak:.0f} %"]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


@contextmanager
def _memory_in_words(batch: int, size: str) -> Iterator[None]:
    """Raises MemoryError that says what to turn down when memory is out within."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(f"out of memory with {batch} x {size} px; lower --batch or --size") from error


def _open(source: str, overrides: list[str]) -> tuple[Config, FasterRCNN]:
    """The config and the detector of a checkpoint with its weights, or of a config with random ones."""
    if not source.startswith(PREFIX) and Path(source).suffix != ".pth":
        config = load_config(source, overrides)
        return config, build_detector(config.model, CLASSES, pretrained=False)
    state = open_checkpoint(source)
    config = config_from_dict(state["config"]).replace(parse_overrides(overrides))
    return config, trained_detector(source, state, config)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def main() -> None:
    """Entry point of the command alone."""
    run_command(profile)
