"""Pictures of the validation split to begin with. They are read once; the page never opens the data's folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detkit.build import build_val_data
from detkit.predict import Detector
from detkit.visualize import fit_picture
from detkit.web.reading import read_file, read_upload

COUNT = 6
SIDE = 160  # px of the longer side of a thumbnail


@dataclass(frozen=True)
class Example:
    """A picture's file, in memory."""

    name: str
    data: bytes
    thumbnail: NDArray[np.uint8]


def find_examples(detector: Detector) -> list[Example]:
    """Pictures with objects, spread evenly over the validation split that the config names; none where it is not there.

    Nothing is drawn or downloaded for them. A picture that the page would refuse is passed over.
    """
    data = detector.config.data
    try:
        if data.root == "shapes" and not Path("data/shapes").is_dir():
            return []
        index = build_val_data(data, detector.classes)
    except (ValueError, OSError):  # moved, of other classes, or of another user
        return []
    shown = [i for i in range(len(index)) if not index.is_empty(i)]
    count = min(COUNT, len(shown))
    found = (_read(index.path(shown[k * len(shown) // count])) for k in range(count))
    return [example for example in found if example is not None]


def _read(path: Path) -> Example | None:
    try:
        data = read_file(path)
        thumbnail, _ = fit_picture(read_upload(data, path.name), (SIDE, SIDE))
    except (ValueError, OSError):
        return None
    return Example(path.name, data, thumbnail)
