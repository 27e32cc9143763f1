"""One split of a data set in any format: where it lies, and what its annotations say."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["coco", "voc", "yolo"]


@dataclass(frozen=True)
class Source:
    """Where a split lies. `members`: the pictures' names without ending, where a list says which are of the split."""

    name: str  # train, val, test, or whatever the files say
    kind: Kind
    annotations: Path  # COCO: the JSON; VOC: the folder of the XML files; YOLO: data.yaml
    images: Path
    labels: Path | None = None  # YOLO: the folder of the label files
    members: tuple[str, ...] | None = None

    @property
    def is_train(self) -> bool:
        """Whether detectors learn from it."""
        return self.name.startswith("train")


@dataclass(frozen=True)
class Split:
    """The rows of a split as in a COCO file: lists of images, annotations and categories, nothing of them checked.

    `faults`: files and lines that could not be read at all, each with the reason.
    """

    source: Source
    content: dict[str, list[Any]]
    faults: list[tuple[Path, str]] = field(default_factory=list)
