"""DATA of `detkit doctor` and `detkit convert`: a data set, or its splits one by one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from detkit.formats import Source, find_splits

Images = Annotated[
    list[Path] | None,
    typer.Option(help="Folder of the pictures, where it is not found; given once, or once for each DATA, in order."),
]


def find_data(data: Sequence[Path], images: Sequence[Path] | None) -> list[Source]:
    """The splits of all DATA, training first. Raises ValueError where there are none, or folders that do not fit."""
    if not data:
        raise ValueError("DATA is missing: name a folder, or COCO JSON files, one a split")
    folders = list(images or ())
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"--images: there is no folder {folder}")
    if len(folders) not in (0, 1, len(data)):
        raise ValueError(f"--images: expected one folder, or one for each of {len(data)} DATA, got {len(folders)}")
    if len(folders) == 1:
        folders *= len(data)
    return find_splits(data, folders or [None] * len(data))
