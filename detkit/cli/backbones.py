"""`detkit backbones`: what each backbone costs, what it sees, how fast it is here, where its weights come from."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from detkit.backbones import BACKBONES
from detkit.cli.errors import Debug
from detkit.summary import Summary, measure_latency, summarise

TABLE_WIDTH = 132  # where the output is no terminal and has no width of its own


def backbones(
    name: Annotated[
        list[str] | None, typer.Option(help="Only this one, may be repeated; also timm/NAME.", show_default=False)
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON alone instead of the table.")] = False,
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Time each one on this CPU.")] = True,
    side: Annotated[int, typer.Option(min=33, help="Pixels a side of the picture that is timed.")] = 320,
    runs: Annotated[int, typer.Option(min=1, help="Forward passes of which the median counts.")] = 5,
    debug: Debug = False,
) -> None:
    """Compare the backbones: parameters, multiply-adds, levels with receptive fields, latency, sources of weights."""
    names = list(dict.fromkeys(name or BACKBONES))
    rows = describe(names, (side, runs) if latency else None)
    if json_output:
        typer.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(TABLE_WIDTH, console.width))
    console.print(backbone_table(rows))


def describe(names: Sequence[str], timed: tuple[int, int] | None) -> list[Summary]:
    """A row for each name; `timed`: side of the picture and number of runs. A bar on stderr shows what is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        counting = progress.add_task("counting", total=len(names))
        rows = []
        for name in names:
            rows.append(summarise(name))
            progress.advance(counting)
        if timed is None:
            return rows
        side, runs = timed
        timing = progress.add_task("timing", total=len(rows) * (runs + 1))
        return [
            dataclasses.replace(row, latency=measure_latency(row.name, side, runs, lambda: progress.advance(timing)))
            for row in rows
        ]


def backbone_table(rows: Sequence[Summary]) -> Table:
    """One row a backbone, one line a level. M: millions, G: thousands of millions, MAC: multiply-adds."""
    table = Table(title="Backbones", caption=_caption(rows), show_lines=True)
    table.add_column("name", no_wrap=True)
    headers = ("params\nM", "MAC, G\nat 224", "MAC, G\n800x1088", "classifier\nparams, M", "classifier\nMAC, G")
    for header in (*headers, "stride", "channels", "field\npx"):
        table.add_column(header, justify="right", no_wrap=True)
    timed = [row.latency for row in rows if row.latency is not None]
    if timed:
        table.add_column("ms", justify="right")
    table.add_column("ImageNet weights", min_width=18, overflow="fold")
    for row in rows:
        table.add_row(*_cells(row, bool(timed)))
    return table


def _cells(row: Summary, timed: bool) -> list[str]:
    levels = row.levels
    cells = [
        row.name,
        f"{row.parameters / 1e6:.2f}",
        f"{row.multiply_adds_224 / 1e9:.2f}",
        f"{row.multiply_adds_800x1088 / 1e9:.1f}",
        _classifier(row.classifier_parameters, 1e6),
        _classifier(row.classifier_multiply_adds, 1e9)
        + (f"\nat {row.classifier_input}" if row.classifier_input not in (None, 224) else ""),
        "\n".join(str(level.stride) for level in levels),
        "\n".join(str(level.channels) for level in levels),
        "\n".join("all" if level.receptive_field is None else str(level.receptive_field) for level in levels),
    ]
    if timed:
        cells.append("" if row.latency is None else f"{row.latency.milliseconds:.1f}")
    return [*cells, row.weights]


def _classifier(number: int | None, unit: float) -> str:
    return "" if number is None else f"{number / unit:.2f}"


def _caption(rows: Sequence[Summary]) -> str:
    text = "MAC: multiply-adds; field: side of the theoretical receptive field"
    text += "\nclassifier: at 224 px or where stated, auxiliary heads among its parameters"
    latency = next((row.latency for row in rows if row.latency is not None), None)
    if latency is None:
        return text
    return (
        f"{text}\nms: median of {latency.runs} runs, one picture of {latency.side}x{latency.side}, float32, "
        f"{latency.threads} threads, torch {torch.__version__}"
    )
