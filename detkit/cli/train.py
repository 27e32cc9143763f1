"""`detkit train CONFIG [section.key=value ...]`: train a detector, score it, draw what it finds."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from detkit.build import (
    TrainingData,
    build_data,
    build_detector,
    build_train_loader,
    build_trainer,
    build_val_loader,
    choose_device,
    choose_precision,
)
from detkit.cli.errors import Debug, Overrides, run_command
from detkit.config import Config, load_config
from detkit.engine.checkpoint import best_weights, config_differences, load_checkpoint, newest_checkpoint
from detkit.engine.run import describe_run, new_run_folder
from detkit.engine.seeding import seed_step
from detkit.engine.train import TrainResult
from detkit.evaluation.table import metrics_table
from detkit.models.faster_rcnn import FasterRCNN
from detkit.validation import Validation
from detkit.weights import load_detector_weights

# Reading every validation picture once more before training is worth its time on sets up to this size.
SMALL_SET = 1000
# What may differ between a run and its continuation without changing what it computes.
HARMLESS = ("data.workers", "train.output", "train.checkpoint_minutes", "train.log_every", "data.root")


def train(
    config: Annotated[str, typer.Argument(help="A config file, or the name of one of detkit's: fpn_r50, ...")],
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of the folder train.output.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train a detector on COCO-format data, evaluate it as it learns, and keep the best."""
    console = Console()
    settings = load_config(config, overrides or [])
    result, folder = run_training(settings, resume, console)
    if result.metrics:
        shown = {key: value for key, value in result.metrics.items() if key.startswith("A")}
        console.print(metrics_table(shown))
    console.print(f"best AP {result.best or 0:.3f}: {folder / 'best.pth'}", highlight=False, soft_wrap=True)


def run_training(config: Config, resume: bool, console: Console) -> tuple[TrainResult, Path]:
    """Everything between a config and a trained detector. Returns the result and the run folder."""
    device = choose_device(config.train.device)
    precision, why = choose_precision(config.train.precision, device)
    data = build_data(config.data)
    config = config.replace({"data.short_side": data.short_side})
    _print_data(data, console)
    seed_step(config.train.seed, -1)
    model = build_detector(config.model, len(data.train.classes))
    _start_from(config.model.weights, model, data.train.classes, console)
    model.to(device)
    loader = build_train_loader(config, data, device)
    val_loader = build_val_loader(config.data, data.val, data.short_side, config.train.batch_size)
    folder, state = _run_folder(config, resume, _fingerprint(data))
    validation = Validation(val_loader, device, precision, folder)
    if len(data.val) <= SMALL_SET:
        validation.check()
    trainer = build_trainer(config, model, loader, folder, _checkpoint_extra(config, data), validation, state)
    if state is None:
        describe_run(folder, config.model_dump(mode="json"), list(data.train.classes), sys.argv)
    console.print(f"device {device}, {precision}: {why}" if precision != "float16" else f"device {device}, float16")
    console.print(
        f"{trainer.steps} steps of {config.train.batch_size * config.train.accumulate} pictures, "
        f"lr {trainer.optimizer.param_groups[0]['initial_lr']:.3g} "
        f"({config.train.lr:.3g} for 16 pictures a step), run folder {folder}",
        highlight=False,
        soft_wrap=True,
    )
    result = trainer.run()
    if loader.skipped:
        console.print(
            f"{len(loader.skipped)} pictures could not be read and were left out: {', '.join(loader.skipped)}"
        )
    return result, folder


def _print_data(data: TrainingData, console: Console) -> None:
    for name, index in (("train", data.train), ("val", data.val)):
        boxes = int((~index.crowd).sum())
        notes = [f"{index.clipped} boxes clipped to the picture"] if index.clipped else []
        notes += [f"{index.dropped} bad rows dropped"] if index.dropped else []
        console.print(
            f"{name}: {len(index)} pictures of {index.images}, {boxes} boxes of {index.annotations}"
            + "".join(f", {note}" for note in notes),
            highlight=False,
            soft_wrap=True,
        )
    classes = data.train.classes
    shown = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    console.print(f"{len(classes)} classes: {shown}; short side {data.short_side} px", highlight=False, markup=False)


def _start_from(path: str | None, model: FasterRCNN, classes: tuple[str, ...], console: Console) -> None:
    if path is None:
        return
    stored = load_checkpoint(path)
    report = load_detector_weights(model, best_weights(stored), stored["classes"], classes)
    table = Table("tensors", "number", "such as", title=f"weights of {path}")
    for kind, number, names in report.rows():
        table.add_row(kind, str(number), names)
    console.print(table)


def _run_folder(config: Config, resume: bool, fingerprint: str) -> tuple[Path, dict[str, Any] | None]:
    """A new folder; with `resume` the one that was asked for, and its last checkpoint, if it has one yet."""
    output = Path(config.train.output or f"runs/{config.name}")
    if not resume:
        return new_run_folder(output), None
    found = newest_checkpoint(output) if output.is_dir() else None
    if found is None:
        output.mkdir(parents=True, exist_ok=True)
        return output, None
    state = found[1]
    changed = [
        line
        for line in config_differences(state["config"], config.model_dump(mode="json"))
        if not line.startswith(HARMLESS)
    ]
    if state.get("data") != fingerprint:
        changed.append("the annotations of the data set")
    if changed:
        raise ValueError(
            f"{found[0]} belongs to a run with other settings: {'; '.join(changed)}. "
            "Give the same ones, or start a new run without --resume"
        )
    return output, state


def _fingerprint(data: TrainingData) -> str:
    return f"{data.train.fingerprint()}-{data.val.fingerprint()}"


def _checkpoint_extra(config: Config, data: TrainingData) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "classes": list(data.train.classes),
        "category_ids": list(data.train.category_ids),
        "data": _fingerprint(data),
    }


def main() -> None:
    """Entry point of tools/train_det.py."""
    run_command(train)
