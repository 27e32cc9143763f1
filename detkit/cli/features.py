"""`detkit features CHECKPOINT PICTURE`: heat maps of the pyramid's levels and of objectness."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from detkit.cli.errors import Debug, run_command
from detkit.cli.output import refuse_existing, say
from detkit.data.pictures import read_picture
from detkit.heatmaps import heat_sheet
from detkit.predict import Detector
from detkit.visualize import write_picture


def features(
    checkpoint: Annotated[Path, typer.Argument(help="best.pth or last.pth of a run, or coco:NAME.")],
    picture: Annotated[Path, typer.Argument(help="A picture file.")],
    output: Annotated[Path, typer.Option(help="The sheet, .jpg or .png.")] = Path("features.jpg"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    debug: Debug = False,
) -> None:
    """Draw where each level of the pyramid is strong, and where the RPN sees objects."""
    refuse_existing(output)
    pixels = read_picture(picture)
    detector = Detector.load(checkpoint, device, "float32")
    write_picture(output, heat_sheet(detector, pixels))
    say(Console(), f"{output}: {len(detector.model.rpn.anchors.strides)} levels of {picture}")


def main() -> None:
    """The command as a program of its own."""
    run_command(features)
