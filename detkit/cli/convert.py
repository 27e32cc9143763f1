"""`detkit convert DATA --to voc --output FOLDER`: a data set in another format."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from detkit.cli.data_sets import Images, find_data
from detkit.cli.errors import Debug, run_command
from detkit.cli.output import say
from detkit.doctor import examine_quickly
from detkit.formats import read_source
from detkit.formats.write import write_dataset
from detkit.validation import show_progress


def convert(
    data: Annotated[
        list[Path], typer.Argument(help="Folder of a COCO, VOC, YOLO or Roboflow data set, or COCO JSONs, one a split.")
    ],
    to: Annotated[str, typer.Option(help="coco, voc or yolo.")],
    output: Annotated[Path, typer.Option(help="A new folder for the data set.")],
    images: Images = None,
    pictures: Annotated[str, typer.Option(help="copy, link (symbolic links) or none: annotations alone.")] = "copy",
    debug: Debug = False,
) -> None:
    """Write a data set in another format, and say what that format cannot hold. Nothing is overwritten."""
    if to not in ("coco", "voc", "yolo"):
        raise ValueError(f"--to: expected coco, voc or yolo, got {to!r}")
    if pictures not in ("copy", "link", "none"):
        raise ValueError(f"--pictures: expected copy, link or none, got {pictures!r}")
    splits = [read_source(source, whole=True) for source in find_data(data, images)]
    findings, _ = examine_quickly(splits)
    wrong = [f for f in findings.all() if f.code.grade == "error" and f.code.name != "empty-split"]
    if wrong:
        told = ", ".join(f"{finding.count} {finding.code.name}" for finding in wrong)
        named = shlex.join(map(str, data))
        raise ValueError(
            f"{named} has errors: {told}, first {wrong[0].places[0].text()}; `detkit doctor {named}` lists them, and"
            " its --fix OUT.json writes a repaired copy to convert"
        )
    console = Console()
    with show_progress("converting", console) as bar:
        task = bar.add_task("", total=sum(len(split.content["images"]) for split in splits))
        lost = write_dataset(splits, to, output, pictures, lambda: bar.advance(task))  # type: ignore[arg-type]
    for split in splits:
        rows = {key: len(split.content[key]) for key in ("images", "annotations")}
        say(console, f"{split.source.name}: {rows['images']} pictures, {rows['annotations']} boxes")
    told = f"; lost: {'; '.join(lost)}" if lost else ", nothing lost"
    say(console, f"{output} ({to}){told}")


def main() -> None:
    """The command as a program of its own."""
    run_command(convert)
