"""One split of a data set in any format: where it lies, and what its annotations say."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

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


class Origin(NamedTuple):
    """A file that says something, and the line of it, from 1, where lines are what one corrects."""

    file: Path
    line: int | None = None


@dataclass(frozen=True)
class Split:
    """The rows of a split as in a COCO file: lists of images, annotations and categories, nothing of them checked.

    `faults`: files and lines that could not be read at all, each with the reason. `origins`: for the lists of `content`
    whose rows come from many files, where each row comes from. `unsized`: rows of images whose label file should state
    their size and does not.
    """

    source: Source
    content: dict[str, list[Any]]
    faults: list[tuple[Origin, str]] = field(default_factory=list)
    origins: dict[str, list[Origin]] = field(default_factory=dict)
    unsized: frozenset[int] = frozenset()

    def origin(self, kind: str, row: int) -> Origin:
        """Where a row of the list `kind` comes from."""
        return self.origins[kind][row] if kind in self.origins else Origin(self.source.annotations)
