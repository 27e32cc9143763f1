"""`detkit eval CHECKPOINT [section.key=value ...]`: COCO's numbers and each class's AP on the validation split."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from detkit.build import build_val_data, build_val_loader
from detkit.cli.closer import Overlap, Slice, Tta, closer
from detkit.cli.errors import Debug, Overrides, run_command
from detkit.cli.output import ALONE, print_choice, refuse_existing, refuse_same, say
from detkit.data.loader import EpochLoader
from detkit.engine.checkpoint import load_checkpoint, save_checkpoint
from detkit.evaluation.coco import Backend, write_predictions
from detkit.evaluation.table import class_table, metrics_table
from detkit.files import write_atomically, write_json
from detkit.predict import Detector
from detkit.report import Inspection, inspect, render
from detkit.report.earlier import Earlier, read_earlier
from detkit.types import Detect
from detkit.validation import Scored, score, score_pictures, show_progress

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file; - prints them alone.")]
Predictions = Annotated[Path | None, typer.Option(help="Write the detections to this file, in COCO's result format.")]
Report = Annotated[
    Path | None, typer.Option(help="Write a page to this file: errors, thresholds, proposals, levels, pictures.")
]
Compare = Annotated[
    list[Path] | None,
    typer.Option(help="An earlier file of --json, a run folder or its metrics.jsonl, for the report; repeatable."),
]
WriteThresholds = Annotated[
    bool, typer.Option("--write-thresholds", help="Keep each class's best score in CHECKPOINT, for the demo.")
]


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="best.pth or last.pth of a run, or coco:NAME.")],
    overrides: Overrides = None,
    backend: Annotated[str, typer.Option(help="hotcoco, or pycocotools, the reference.")] = "hotcoco",
    json_file: JsonFile = None,
    predictions: Predictions = None,
    report: Report = None,
    compare: Compare = None,
    write_thresholds: WriteThresholds = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 4,
    tile: Slice = None,
    overlap: Overlap = None,
    tta: Tta = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    debug: Debug = False,
) -> None:
    """Score a checkpoint on the validation split of its data set, or of another one given by data.root=..."""
    if backend not in ("hotcoco", "pycocotools"):
        raise ValueError(f"--backend: expected hotcoco or pycocotools, got {backend!r}")
    wanted = Wanted(checkpoint, json_file, predictions, report, compare or (), write_thresholds)
    wanted.check()
    detector = Detector.load(checkpoint, device, precision, overrides or [])
    print_choice(wanted.console, detector.model, detector.device, detector.precision, detector.precision_reason)
    look = closer(detector, tile, overlap, tta)
    if look is not None:
        wanted.check_closer()
        wanted.write_scores(score_closer(detector, look, backend))  # type: ignore[arg-type]
    elif not wanted.inspection:
        wanted.write_scores(score_checkpoint(detector, backend, batch_size))  # type: ignore[arg-type]
    else:
        inspection = inspect_checkpoint(detector, backend, batch_size)  # type: ignore[arg-type]
        wanted.write_scores(inspection.scored, inspection)
        wanted.write_inspection(inspection)


@dataclass(frozen=True)
class Wanted:
    """What `detkit eval` is to write, and its checks before any work: ValueError tells what cannot be."""

    checkpoint: Path
    json_file: Path | None
    predictions: Path | None
    report: Path | None
    compare: Sequence[Path]
    thresholds: bool

    @cached_property
    def console(self) -> Console:
        """For people: not where a program reads the numbers."""
        return Console(stderr=self.json_file == ALONE)

    @cached_property
    def earlier(self) -> list[Earlier]:
        """The runs to compare with."""
        return [read_earlier(path) for path in self.compare]

    def check(self) -> None:
        """Files that are there already, or named twice; what else is missing."""
        files = (None if self.json_file == ALONE else self.json_file, self.predictions, self.report)
        refuse_existing(*files)
        refuse_same("--json, --predictions and --report", *files)
        if self.earlier and self.report is None:
            raise ValueError("--compare is for the page: give --report FILE.html, too")
        if self.thresholds and not self.checkpoint.is_file():
            raise ValueError(f"--write-thresholds: there is no checkpoint file {self.checkpoint} to write them to")

    @property
    def inspection(self) -> bool:
        """Whether more is asked for than scores."""
        return self.json_file is not None or self.report is not None or self.thresholds

    def check_closer(self) -> None:
        """Of what looks closer there are scores alone."""
        if self.report is not None or self.thresholds:
            raise ValueError(
                "--report and --write-thresholds are about the plain detector: leave out --slice and --tta"
            )

    def write_scores(self, scored: Scored, inspection: Inspection | None = None) -> None:
        """The tables, or the numbers alone, and the files of numbers and detections."""
        if self.predictions is not None:
            write_predictions(self.predictions, scored.rows)
        if self.json_file == ALONE:
            typer.echo(json.dumps(_numbers(scored, inspection), indent=2))
            return
        index = scored.index
        say(self.console, f"{len(index)} pictures of {index.images}, annotations {index.annotations}")
        self.console.print(metrics_table(scored.evaluation.metrics))
        self.console.print(class_table(scored.evaluation.classes))
        if self.json_file is not None:
            self.json_file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.json_file, _numbers(scored, inspection))

    def write_inspection(self, inspection: Inspection) -> None:
        """The page, and the thresholds in the checkpoint."""
        if self.report is not None:
            self.report.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.report, render(str(self.checkpoint), inspection, self.earlier))
            say(self.console, f"page: {self.report}")
        if self.thresholds:
            _write_thresholds(self.console, self.checkpoint, inspection)


def score_checkpoint(detector: Detector, backend: Backend, batch_size: int) -> Scored:
    """Run a detector over the validation split that its config names. Raises ValueError where the classes differ."""
    loader = _loader(detector, batch_size)
    with _counting(len(loader.dataset)) as advance:
        return score(detector.predict, loader, backend, advance)


def inspect_checkpoint(detector: Detector, backend: Backend, batch_size: int) -> Inspection:
    """As `score_checkpoint`, and what the detector gets wrong."""
    loader = _loader(detector, batch_size)
    with _counting(len(loader.dataset)) as advance:
        return inspect(detector, loader, batch_size, backend, advance)


def score_closer(detector: Detector, look: Detect, backend: Backend) -> Scored:
    """As `score_checkpoint`, for what looks at pictures as they are, in the detector's place."""
    index = build_val_data(detector.config.data, detector.classes)
    with _counting(len(index)) as advance:
        return score_pictures(look, index, backend, advance)


def _loader(detector: Detector, batch_size: int) -> EpochLoader:
    data = detector.config.data
    return build_val_loader(data, build_val_data(data, detector.classes), detector.short_side, batch_size)


@contextmanager
def _counting(pictures: int) -> Iterator[Callable[[int], None]]:
    """A bar, and what moves it by so many pictures."""
    with show_progress("evaluating") as progress:
        task = progress.add_task("", total=pictures)
        yield lambda count: progress.advance(task, count)


def _numbers(scored: Scored, inspection: Inspection | None) -> dict[str, Any]:
    classes = {name: asdict(numbers) for name, numbers in scored.evaluation.classes.items()}
    beyond = inspection.as_json() if inspection else {}
    data = {"annotations": str(scored.index.annotations), "pictures": len(scored.index), "boxes": scored.boxes}
    return {"metrics": scored.evaluation.metrics, "classes": classes, "data": data, **beyond}


def _write_thresholds(console: Console, checkpoint: Path, inspection: Inspection) -> None:
    """Add them to the checkpoint, whose other content stays as it is."""
    thresholds = inspection.thresholds()
    path = checkpoint.resolve()  # a link stays one
    save_checkpoint(path, load_checkpoint(path) | {"score_thresholds": thresholds})
    told = zip(inspection.detector.classes, thresholds, strict=True)
    say(console, f"score thresholds in {checkpoint}: {', '.join(f'{name} {score:.3f}' for name, score in told)}")
    index = inspection.scored.index
    if index.partial:
        seen = f"the first {len(index)} pictures alone (data.limit={len(index)})"
        say(console, f"warning: these thresholds come from {seen}; data.limit=none gives those of the whole split")


def main() -> None:
    """Entry point of tools/eval_det.py."""
    run_command(evaluate)
