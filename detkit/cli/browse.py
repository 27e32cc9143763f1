"""`detkit browse CONFIG`: training pictures as the model sees them."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from detkit.browsing import Show, View
from detkit.build import build_data, build_train_loader, build_val_loader
from detkit.cli.errors import Debug, Overrides, run_command
from detkit.cli.output import refuse_existing, say
from detkit.config import load_config
from detkit.data.dataset import DetectionDataset
from detkit.visualize import picture_sheet, write_picture

ENDINGS = (".jpg", ".jpeg", ".png")


def browse(
    config: Annotated[str, typer.Argument(help="A config file, or the name of one of detkit's: fpn_r50, ...")],
    overrides: Overrides = None,
    output: Annotated[
        Path, typer.Option(help="A picture (.jpg, .png): one sheet; another name: a folder of pictures.")
    ] = Path("browse.jpg"),
    count: Annotated[int, typer.Option(min=1, help="How many pictures, spread evenly over the split.")] = 16,
    epoch: Annotated[int, typer.Option(min=0, help="The epoch whose augmentation is shown.")] = 0,
    val: Annotated[bool, typer.Option("--val", help="The validation split, which is not augmented.")] = False,
    anchors: Annotated[
        bool, typer.Option("--anchors", help="The anchors that the RPN learns each object from.")
    ] = False,
    levels: Annotated[
        bool, typer.Option("--levels", help="Colours by the level that objects are pooled from.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Draw pictures with their annotations after augmentation and resizing, to the pixel as in training."""
    if anchors and levels:
        raise ValueError("--anchors and --levels: choose one of the two")
    refuse_existing(output)
    settings = load_config(config, overrides or [])
    data = build_data(settings.data)
    settings = settings.replace({"data.short_side": data.short_side, "data.workers": 0})
    if val:
        dataset = build_val_loader(settings.data, data.val, data.short_side, 1).dataset
    else:
        dataset = build_train_loader(settings, data, torch.device("cpu")).dataset
    show: Show = "anchors" if anchors else "levels" if levels else "classes"
    view = View(settings, data.train.classes, show)
    sheet = output.suffix.lower() in ENDINGS
    written = _draw_sheet(view, dataset, output, count, epoch) if sheet else _draw(view, dataset, output, count, epoch)
    say(Console(), f"{output}: {written} of {len(dataset)} pictures of {dataset.index.annotations}")


def _chosen(dataset: DetectionDataset, count: int) -> list[int]:
    count = min(count, len(dataset))
    return [k * len(dataset) // count for k in range(count)]


def _draw_sheet(view: View, dataset: DetectionDataset, output: Path, count: int, epoch: int) -> int:
    chosen = _chosen(dataset, count)
    drawn = [view(dataset[epoch, i, k]) for k, i in enumerate(chosen)]
    names = [dataset.file_name(i) for i in chosen]
    write_picture(output, picture_sheet([picture for picture, _ in drawn], [title for _, title in drawn], names))
    return len(chosen)


def _draw(view: View, dataset: DetectionDataset, output: Path, count: int, epoch: int) -> int:
    """A file for each picture, as large as the model sees it; numbered, as names may repeat in subfolders."""
    chosen = _chosen(dataset, count)
    for k, i in enumerate(chosen):
        picture, _ = view(dataset[epoch, i, k], cell=None)
        write_picture(output / f"{i:06d}_{Path(dataset.file_name(i)).stem}.png", picture)
    return len(chosen)


def main() -> None:
    """The command as a program of its own."""
    run_command(browse)
