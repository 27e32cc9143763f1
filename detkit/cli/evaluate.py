"""`detkit eval CHECKPOINT [section.key=value ...]`: COCO's numbers and each class's AP on the validation split."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from detkit.build import build_val_data, build_val_loader
from detkit.cli.closer import Overlap, Slice, Tta, closer
from detkit.cli.errors import Debug, Overrides, run_command
from detkit.cli.output import refuse_existing, say
from detkit.engine.checkpoint import load_checkpoint, save_checkpoint
from detkit.evaluation.coco import Backend, write_predictions
from detkit.evaluation.table import class_table, metrics_table
from detkit.files import write_atomically, write_json
from detkit.predict import Detector
from detkit.report import Inspection, inspect, render
from detkit.report.earlier import read_earlier
from detkit.types import Detect
from detkit.validation import Scored, score_pictures, show_progress


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="best.pth or last.pth of a run, or coco:NAME.")],
    overrides: Overrides = None,
    backend: Annotated[str, typer.Option(help="hotcoco, or pycocotools, the reference.")] = "hotcoco",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all numbers to this file; - prints them alone.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write the detections to this file, in COCO's result format.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page to this file: errors, thresholds, proposals, levels, pictures.")
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="An earlier file of --json, a run folder or its metrics.jsonl, for the report; repeatable."),
    ] = None,
    write_thresholds: Annotated[
        bool, typer.Option("--write-thresholds", help="Keep each class's best score in CHECKPOINT, for the demo.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 4,
    tile: Slice = None,
    overlap: Overlap = 0.2,
    tta: Tta = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    debug: Debug = False,
) -> None:
    """Score a checkpoint on the validation split of its data set, or of another one given by data.root=..."""
    if backend not in ("hotcoco", "pycocotools"):
        raise ValueError(f"--backend: expected hotcoco or pycocotools, got {backend!r}")
    _check_outputs(json_file, predictions, report)
    earlier = [read_earlier(path) for path in compare or []]
    if earlier and report is None:
        raise ValueError("--compare is for the page: give --report FILE.html, too")
    if write_thresholds and not checkpoint.is_file():
        raise ValueError(f"--write-thresholds: there is no checkpoint file {checkpoint} to write them to")
    detector = Detector.load(checkpoint, device, precision, overrides or [])
    look = closer(detector, tile, overlap, tta)
    if look is not None and (report is not None or write_thresholds):
        raise ValueError("--report and --write-thresholds are about the plain detector: leave out --slice and --tta")
    inspection = None if look else inspect_checkpoint(detector, backend, batch_size)  # type: ignore[arg-type]
    scored = inspection.scored if inspection else score_closer(detector, look, backend)  # type: ignore[arg-type]
    console = Console(stderr=json_file == Path("-"))
    if predictions is not None:
        write_predictions(predictions, scored.rows)
    if json_file == Path("-"):
        typer.echo(json.dumps(_numbers(scored, inspection), indent=2))
    else:
        index = scored.index
        say(console, f"{len(index)} pictures of {index.images}, annotations {index.annotations}")
        console.print(metrics_table(scored.evaluation.metrics))
        console.print(class_table(scored.evaluation.classes))
    if json_file is not None and json_file != Path("-"):
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(json_file, _numbers(scored, inspection))
    if report is not None and inspection:
        report.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(report, render(str(checkpoint), inspection, earlier))
        say(console, f"page: {report}")
    if write_thresholds and inspection:
        _write_thresholds(console, checkpoint, inspection)


def _check_outputs(*files: Path | None) -> None:
    refuse_existing(*files)
    named = [file.resolve() for file in files if file is not None]
    if len(set(named)) < len(named):
        raise ValueError("--json, --predictions and --report must name different files")


def inspect_checkpoint(detector: Detector, backend: Backend, batch_size: int) -> Inspection:
    """Run a detector over the validation split that its config names, and look at what it gets wrong.

    Raises ValueError where the classes differ.
    """
    data = detector.config.data
    index = build_val_data(data, detector.classes)
    loader = build_val_loader(data, index, detector.short_side, batch_size)
    with show_progress("evaluating") as progress:
        task = progress.add_task("", total=len(index))
        return inspect(detector, loader, batch_size, backend, lambda count: progress.advance(task, count))


def score_closer(detector: Detector, look: Detect, backend: Backend) -> Scored:
    """As `inspect_checkpoint`, the scores alone, for what looks at pictures as they are, in the detector's place."""
    index = build_val_data(detector.config.data, detector.classes)
    with show_progress("evaluating") as progress:
        task = progress.add_task("", total=len(index))
        return score_pictures(look, index, backend, lambda count: progress.advance(task, count))


def _numbers(scored: Scored, inspection: Inspection | None) -> dict[str, Any]:
    classes = {name: asdict(numbers) for name, numbers in scored.evaluation.classes.items()}
    beyond = inspection.as_json() if inspection else {}
    return {"metrics": scored.evaluation.metrics, "classes": classes, **beyond}


def _write_thresholds(console: Console, checkpoint: Path, inspection: Inspection) -> None:
    """Add them to the checkpoint, whose other content stays as it is."""
    thresholds = inspection.thresholds()
    path = checkpoint.resolve()  # a link stays one
    save_checkpoint(path, load_checkpoint(path) | {"score_thresholds": thresholds})
    told = zip(inspection.detector.classes, thresholds, strict=True)
    say(console, f"score thresholds in {checkpoint}: {', '.join(f'{name} {score:.3f}' for name, score in told)}")


def main() -> None:
    """Entry point of tools/eval_det.py."""
    run_command(evaluate)
