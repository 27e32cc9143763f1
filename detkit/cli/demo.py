"""`detkit demo CHECKPOINT PICTURE|FOLDER|GLOB ... --output out/`: draw what a detector finds."""

import glob
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from detkit.cli.errors import Debug, run_command
from detkit.data.pictures import SUFFIXES, read_picture
from detkit.evaluation.coco import detection_rows
from detkit.files import write_json
from detkit.predict import Detector
from detkit.types import Detection
from detkit.validation import show_progress
from detkit.visualize import draw_detections, write_picture

OVERRIDE = re.compile(r"^[a-z_]+(\.[a-z_0-9]+)+=")
PREDICTIONS, IMAGES = "predictions.json", "images.json"


def demo(
    checkpoint: Annotated[Path, typer.Argument(help="best.pth or last.pth of a run, or coco:NAME.")],
    pictures: Annotated[
        list[str],
        typer.Argument(help="Pictures, folders, patterns such as 'a/*.jpg'; and section.key=value overrides."),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the drawn pictures and the detections.")] = Path("out"),
    score: Annotated[
        str, typer.Option(help="Draw and write detections from this score on; auto: each class's own.")
    ] = "0.5",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    debug: Debug = False,
) -> None:
    """Detect on pictures: draws boxes, writes predictions.json (COCO's result format) and images.json."""
    overrides = [text for text in pictures if OVERRIDE.match(text) and not Path(text).exists()]
    files = find_pictures([text for text in pictures if text not in overrides], output)
    targets = _targets(files, output)
    detector = Detector.load(checkpoint, device, precision, overrides)
    threshold = chosen_threshold(score, detector)
    images, rows, counts = [], [], Counter[str]()
    bad: list[str] = []
    with show_progress("detecting") as progress:
        task = progress.add_task("", total=len(files))
        for number, (file, target) in enumerate(zip(files, targets, strict=True), start=1):
            try:
                picture = read_picture(file)
            except ValueError as error:
                bad.append(str(error))
                progress.advance(task)
                continue
            (detection,) = detector([picture])
            detection = above(detection, threshold)
            write_picture(target, draw_detections(picture, detection, detector.classes))
            images.append({"id": number, "file_name": str(file), "height": picture.shape[0], "width": picture.shape[1]})
            rows += detection_rows([detection], [number], detector.category_ids)
            counts.update(detector.classes[label] for label in detection["labels"].tolist())
            progress.advance(task)
    _write_and_print(output, images, rows, counts)
    if bad:
        raise ValueError(f"{len(bad)} of {len(files)} pictures could not be read: {'; '.join(bad)}")


def chosen_threshold(score: str, detector: Detector) -> float | Tensor:
    """The number that `--score` gives, or, for `auto`, those of the checkpoint, by label (K,)."""
    if score == "auto":
        if detector.score_thresholds is None:
            raise ValueError(
                "--score auto: the checkpoint has no thresholds; `detkit eval --write-thresholds` adds them"
            )
        return torch.tensor(detector.score_thresholds)
    try:
        value = float(score)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"--score: expected auto or a number from 0 to 1, got {score!r}")
    return value


def above(detection: Detection, score: float | Tensor) -> Detection:
    """The part of a detection with at least the given score, one for all or one for each label (K,)."""
    sure = detection["scores"] >= (score if isinstance(score, float) else score[detection["labels"]])
    return {
        "boxes": detection["boxes"][sure],
        "labels": detection["labels"][sure],
        "scores": detection["scores"][sure],
    }


def find_pictures(sources: Sequence[str], output: Path) -> list[Path]:
    """The picture files that files, folders (with all below) and patterns name, each once.

    What lies in the folder `output`, drawn by an earlier call, is left out unless it is named itself.
    Raises ValueError for a source without any.
    """
    found: dict[Path, None] = {}
    for source in sources:
        files = [
            file for file in _expand(source) if str(file) == source or output.resolve() not in file.resolve().parents
        ]
        if not files:
            raise ValueError(
                f"no picture {source!r}: expected a file, a folder or a pattern of {', '.join(sorted(SUFFIXES))}"
            )
        found |= dict.fromkeys(files)
    if not found:
        raise ValueError("no pictures given: name files, folders or patterns")
    return list(found)


def _expand(source: str) -> Iterator[Path]:
    path = Path(source)
    if path.is_file():
        yield path
        return
    candidates = path.rglob("*") if path.is_dir() else map(Path, glob.glob(source, recursive=True))  # noqa: PTH207 (it takes absolute patterns)
    yield from sorted(file for file in candidates if file.is_file() and file.suffix.lower() in SUFFIXES)


def _targets(files: Sequence[Path], output: Path) -> list[Path]:
    """Where each drawing goes: the file's name in `output`, numbered where names repeat; nothing is overwritten."""
    taken: set[str] = set()
    targets = []
    for file in files:
        suffix = file.suffix.lower() if file.suffix.lower() in (".jpg", ".jpeg", ".png") else ".png"
        name, number = f"{file.stem}{suffix}", 2
        while name.lower() in taken:  # some file systems do not tell A.jpg from a.jpg
            name, number = f"{file.stem}-{number}{suffix}", number + 1
        taken.add(name.lower())
        targets.append(output / name)
    existing = [target for target in (*targets, output / PREDICTIONS, output / IMAGES) if target.exists()]
    if existing:
        raise ValueError(f"{existing[0]} exists already and is not overwritten: choose another --output folder")
    return targets


def _write_and_print(
    output: Path, images: list[dict[str, Any]], rows: list[dict[str, Any]], counts: Counter[str]
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / PREDICTIONS, rows)
    write_json(output / IMAGES, images)
    table = Table("class", "found", title=escape(f"{len(images)} pictures in {output}"))
    for name, count in counts.most_common():
        table.add_row(escape(name), str(count))
    Console().print(table)


def main() -> None:
    """Entry point of tools/demo.py."""
    run_command(demo)
