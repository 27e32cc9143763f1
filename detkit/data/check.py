"""The gate for targets, and the list of faults that a bad annotation file gets.

N boxes, K classes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from detkit.boxes import clip_boxes
from detkit.types import Target

SHOWN = 20


def check_target(target: Target, num_classes: int, height: int, width: int, where: str) -> Target:
    """The target with its boxes clipped to the picture (height, width); labels must lie in [0, num_classes).

    Raises ValueError, which names `where` (file, ids), for NaN or infinite coordinates, boxes without width or height
    or wholly outside the picture, labels outside the range, and unequal numbers of boxes and labels.
    """
    boxes, labels = target["boxes"], target["labels"]
    if len(boxes) != len(labels):
        raise ValueError(f"{where}: {len(boxes)} boxes but {len(labels)} labels")
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise ValueError(f"{where}: labels must be int64 (N,), not {labels.dtype} {tuple(labels.shape)}")
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        index = int(wrong.nonzero()[0])
        raise ValueError(f"{where}: label {int(labels[index])} of box {index} is outside [0, {num_classes})")
    checked: Target = {"boxes": _check_boxes(boxes, height, width, where), "labels": labels}
    if "ignore" in target:
        checked["ignore"] = _check_boxes(target["ignore"], height, width, f"{where}, ignore regions")
    return checked


def _check_boxes(boxes: torch.Tensor, height: int, width: int, where: str) -> torch.Tensor:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{where}: boxes must have the shape (N, 4), not {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise ValueError(f"{where}: boxes must be float32, not {boxes.dtype}")
    clipped = clip_boxes(boxes, height, width)
    for reason, bad in (
        ("is not finite", ~torch.isfinite(boxes).all(dim=1)),
        ("has no width or height (x2 <= x1 or y2 <= y1)", (boxes[:, 2:] <= boxes[:, :2]).any(dim=1)),
        (f"lies wholly outside the picture of {width} x {height}", (clipped[:, 2:] <= clipped[:, :2]).any(dim=1)),
    ):
        if bad.any():
            index = int(bad.nonzero()[0])
            raise ValueError(f"{where}: box {index} {boxes[index].tolist()} {reason}")
    return clipped


@dataclass
class Faults:
    """Rows of an annotation file that are wrong beyond repair, in the order in which they were found."""

    file: Path
    lines: list[str] = field(default_factory=list)  # the first SHOWN only
    count: int = 0

    def add(self, kind: str, identity: object, reason: str) -> None:
        """Note a fault of a row; `kind` is image or annotation, `identity` its id or its place in the file."""
        self.count += 1
        if len(self.lines) < SHOWN:
            self.lines.append(f"{self.file}: {kind} {identity}: {reason}")

    def extend(self, kind: str, rows: Iterable[tuple[object, str]]) -> None:
        """Note a fault for each pair of identity and reason."""
        for identity, reason in rows:
            self.add(kind, identity, reason)

    def stop(self, advice: str) -> None:
        """Raise one ValueError with all faults, at most SHOWN of them in words, if there are any."""
        if self.count:
            raise ValueError("\n".join(self._report(advice)))

    def _report(self, advice: str) -> Iterator[str]:
        yield f"{self.file} has {self.count} row{'s' if self.count > 1 else ''} that cannot be used:"
        yield from (f"  {line}" for line in self.lines)
        if self.count > len(self.lines):
            yield f"  ... and {self.count - len(self.lines)} more"
        yield advice
