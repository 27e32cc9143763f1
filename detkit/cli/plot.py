"""`detkit plot RUN...`: the curves of one or more runs as a picture."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from detkit.cli.errors import Debug, run_command
from detkit.cli.output import refuse_existing, say
from detkit.curves import draw_curves, read_runs


def plot(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or files like metrics.jsonl.")],
    output: Annotated[Path, typer.Option(help="The picture, a PNG.")] = Path("curves.png"),
    metric: Annotated[
        list[str] | None, typer.Option(help="A key of the rows, such as AP50; again for more. Without: the usual ones.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Draw losses, learning rate and scores of runs over their steps, one colour a run."""
    if output.suffix.lower() != ".png":
        raise ValueError(f"--output: expected a name that ends in .png, got {output}")
    refuse_existing(output)
    found = read_runs(runs)
    output.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_curves(output, found, metric or [])
    say(Console(), f"{output}: {', '.join(drawn)} of {', '.join(run.name for run in found)}")


def main() -> None:
    """The command as a program of its own."""
    run_command(plot)
