"""Big pictures with small objects, to see what tiles are worth: validation pictures pasted into grids.

    python benchmarks/paste_pictures.py best.pth pasted data.root=roadsigns
    detkit eval best.pth data.root=pasted
    detkit eval best.pth data.root=pasted --slice 400

Pictures that do not fill a grid at the end are left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from detkit.build import build_val_data
from detkit.cli.errors import Overrides, run_command
from detkit.data.coco import CocoIndex
from detkit.data.pictures import read_picture
from detkit.files import write_json
from detkit.predict import Detector
from detkit.types import Picture
from detkit.visualize import write_picture

GREY = 114


def main(
    checkpoint: Path,
    output: Annotated[Path, typer.Argument(help="A new folder, in COCO's flat layout.")],
    overrides: Overrides = None,
    grid: Annotated[int, typer.Option(min=1, help="Pictures a side.")] = 4,
) -> None:
    """Paste the validation pictures of a detector, grid x grid each, and write them as a data set."""
    detector = Detector.load(checkpoint, "cpu", "auto", overrides or [])
    index = build_val_data(detector.config.data, detector.classes)
    (output / "images").mkdir(parents=True)
    (output / "annotations").mkdir()
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for number, (picture, found) in enumerate(pasted(index, grid), start=1):
        name = f"{number:04d}.png"
        write_picture(output / "images" / name, picture)
        images.append({"id": number, "file_name": name, "height": picture.shape[0], "width": picture.shape[1]})
        rows += [{"id": len(rows) + k, "image_id": number, "iscrowd": 0, **row} for k, row in enumerate(found, start=1)]
    categories = [
        {"id": k, "name": name} for name, k in zip(index.classes, index.category_ids, strict=True) if k is not None
    ]
    content = {"images": images, "annotations": rows, "categories": categories}
    write_json(output / "annotations/instances_val.json", content)


def pasted(index: CocoIndex, grid: int) -> Iterator[tuple[Picture, list[dict[str, Any]]]]:
    """Each big picture, of cells as large as the largest picture, and COCO's rows of its objects, without ids."""
    cell = int(max(index.heights.max(), index.widths.max()))
    for first in range(0, len(index) - grid**2 + 1, grid**2):
        canvas, rows = np.full((grid * cell, grid * cell, 3), GREY, np.uint8), []
        for place in range(grid**2):
            i, y, x = first + place, place // grid * cell, place % grid * cell
            height, width = int(index.heights[i]), int(index.widths[i])
            canvas[y : y + height, x : x + width] = read_picture(index.path(i), (height, width))
            target = index.target(i)
            for (x1, y1, x2, y2), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
                box = [x1 + x, y1 + y, x2 - x1, y2 - y1]
                rows.append({"category_id": index.category_ids[label], "bbox": box, "area": box[2] * box[3]})
        yield canvas, rows


if __name__ == "__main__":
    run_command(main)
