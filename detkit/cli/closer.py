"""`--slice`, `--overlap` and `--tta`: detecting with a closer look."""

from typing import Annotated

import typer

from detkit.augmented import augmented
from detkit.predict import Detector
from detkit.slicing import sliced
from detkit.types import Detect

OVERLAP = 0.2

Slice = Annotated[
    int | None,
    typer.Option(
        "--slice",
        min=32,
        help="Cut pictures into tiles of so many px a side, look at each and at the whole, and merge: for small "
        "objects in big pictures. Tiles are best as large as the pictures that the detector was trained on.",
        show_default=False,
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=0.9,
        help=f"With --slice: the share of a tile that the next one shows, too; {OVERLAP} without.",
        show_default=False,
    ),
]
Tta = Annotated[
    bool,
    typer.Option(
        "--tta", help="Look at each picture and its mirror image at three sizes, and merge; six times as slow."
    ),
]


def closer(detector: Detector, tile: int | None, overlap: float | None, tta: bool) -> Detect | None:
    """What a detector does with these options; None where none is given. With both each tile is augmented."""
    if overlap is not None and tile is None:
        raise ValueError("--overlap is that of tiles: give --slice, too")
    iou = detector.config.model.nms_iou
    detect = augmented(detector.detect, iou=iou) if tta else detector.detect
    if tile is not None:
        return sliced(detect, tile, OVERLAP if overlap is None else overlap, iou)
    return detect if tta else None
