"""`detkit eval CHECKPOINT [section.key=value ...]`: COCO's numbers and each class's AP on the validation split."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from detkit.build import build_val_data, build_val_loader
from detkit.cli.errors import Debug, Overrides, run_command
from detkit.cli.output import refuse_existing, say
from detkit.evaluation.coco import Backend, write_predictions
from detkit.evaluation.table import class_table, metrics_table
from detkit.files import write_json
from detkit.predict import Detector
from detkit.validation import Scored, score, show_progress


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
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 4,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    debug: Debug = False,
) -> None:
    """Score a checkpoint on the validation split of its data set, or of another one given by data.root=..."""
    if backend not in ("hotcoco", "pycocotools"):
        raise ValueError(f"--backend: expected hotcoco or pycocotools, got {backend!r}")
    refuse_existing(json_file, predictions)
    if json_file is not None and json_file == predictions:
        raise ValueError("--json and --predictions name the same file")
    detector = Detector.load(checkpoint, device, precision, overrides or [])
    scored = score_checkpoint(detector, backend, batch_size)  # type: ignore[arg-type]
    if predictions is not None:
        write_predictions(predictions, scored.rows)
    report = _report(scored)
    if json_file == Path("-"):
        typer.echo(json.dumps(report, indent=2))
        return
    console = Console()
    index = scored.index
    say(console, f"{len(index)} pictures of {index.images}, annotations {index.annotations}")
    console.print(metrics_table(scored.evaluation.metrics))
    console.print(class_table(scored.evaluation.classes))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(json_file, report)


def score_checkpoint(detector: Detector, backend: Backend, batch_size: int) -> Scored:
    """Run a detector over the validation split that its config names. Raises ValueError where the classes differ."""
    data = detector.config.data
    index = build_val_data(data, detector.classes)
    loader = build_val_loader(data, index, detector.short_side, batch_size)
    with show_progress("evaluating") as progress:
        task = progress.add_task("", total=len(index))
        return score(detector.predict, loader, backend, lambda count: progress.advance(task, count))


def _report(scored: Scored) -> dict[str, Any]:
    classes = {name: asdict(numbers) for name, numbers in scored.evaluation.classes.items()}
    return {"metrics": scored.evaluation.metrics, "classes": classes}


def main() -> None:
    """Entry point of tools/eval_det.py."""
    run_command(evaluate)
