"""What the doctor can find: every code with its grade, what it means and what to do; and what was found."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from detkit.doctor.codes import CODES, Code, Grade

GRADES: tuple[Grade, ...] = ("error", "warning", "note")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Place:
    """Where something was found. `row` is the place in the file's list that `kind` names, for repairs."""

    file: Path
    detail: str = ""
    kind: Literal["file", "image", "annotation", "category"] = "file"
    row: int | None = None
    image_id: int | None = None
    file_name: str = ""
    annotation_id: int | None = None
    box: Box | None = None  # x, y, width, height px
    picture: Path | None = None
    size: tuple[int, int] | None = None  # (height, width) px that the picture really has
    split: str = ""
    line: int | None = None  # of the file

    def text(self) -> str:
        """In a few words: file, ids, what is there."""
        parts = [] if self.split in self.file.name else [f"{self.split}:"]
        parts += [self.file.name]
        parts += [f"line {self.line}"] if self.line is not None else []
        parts += [f"image {self.image_id}"] if self.image_id is not None else []
        parts += [f"({self.file_name})"] if self.file_name else []
        parts += [f"annotation {self.annotation_id}"] if self.annotation_id is not None else []
        if self.row is not None and self.image_id is None and self.annotation_id is None:
            parts.append(f"{self.kind} {self.row} of the list")
        return " ".join(parts) + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True)
class Finding:
    """One kind of thing and all the places where it was found."""

    code: Code
    places: tuple[Place, ...]

    @property
    def count(self) -> int:
        """How many rows, pictures, categories or files."""
        return len(self.places)


@dataclass
class Findings:
    """Collects places by code, and gives them back by grade."""

    _places: dict[str, list[Place]] = field(default_factory=dict)

    def add(self, code: str, *places: Place) -> None:
        """Note places of a code that is in CODES."""
        assert code in CODES, code
        if places:
            self._places.setdefault(code, []).extend(places)

    def of(self, code: str) -> list[Place]:
        """The places of a code."""
        return self._places.get(code, [])

    def all(self) -> list[Finding]:
        """Errors first, then warnings, then notes; each in the order of CODES."""
        found = [Finding(code, tuple(self._places[name])) for name, code in CODES.items() if name in self._places]
        return sorted(found, key=lambda finding: GRADES.index(finding.code.grade))

    def count(self, grade: Grade) -> int:
        """How many places of a grade there are."""
        return sum(finding.count for finding in self.all() if finding.code.grade == grade)
