"""`detkit train CONFIG [section.key=value ...]`: train a detector, score it, draw what it finds."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

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
from detkit.cli.output import print_report, say
from detkit.config import Config, load_config
from detkit.engine.checkpoint import best_weights
from detkit.engine.interface import TrainResult
from detkit.engine.resume import resumed_state
from detkit.engine.run import describe_run, new_run_folder
from detkit.engine.schedule import scaled_lr
from detkit.engine.seeding import seed_step, use_deterministic_algorithms
from detkit.evaluation.table import metrics_table
from detkit.models.faster_rcnn import FasterRCNN
from detkit.ready_made import open_checkpoint
from detkit.validation import Validation, check_loader, show_progress
from detkit.weights import load_detector_weights

# Reading every validation picture once more before training is worth its time on sets up to this size.
SMALL_SET = 1000
# What may differ between a run and its continuation without changing what it computes.
HARMLESS = (
    *("data.workers", "data.root", "data.train_annotations", "data.train_images", "data.val_annotations"),
    *("data.val_images", "train.output", "train.checkpoint_minutes", "train.log_every"),
)


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
    if result.best is not None and result.best >= 0:
        say(console, f"best AP {result.best:.3f}: {folder / 'best.pth'}")
    else:
        say(console, f"the validation split shows no objects, so nothing was scored: {folder / 'last.pth'}")


def run_training(config: Config, resume: bool, console: Console) -> tuple[TrainResult, Path]:
    """Everything between a config and a trained detector. Returns the result and the run folder."""
    device = choose_device(config.train.device)
    precision, why = choose_precision(config.train.precision, device)
    if config.train.deterministic:
        use_deterministic_algorithms()
    with show_progress("drawing Shapes") as bar:
        task = bar.add_task("", visible=False)
        data = build_data(config.data, lambda done, total: bar.update(task, completed=done, total=total, visible=True))
    config = config.replace({"data.short_side": data.short_side})
    _print_data(data, console)
    plain = config.model_dump(mode="json")
    state = resumed_state(_output(config), plain, _fingerprint(data), HARMLESS) if resume else None
    model = _build_model(config, data, state is None, console).to(device)
    loader = build_train_loader(config, data, device)
    val_loader = build_val_loader(config.data, data.val, data.short_side, config.train.batch_size)
    if len(data.val) <= SMALL_SET:
        check_loader(val_loader)
    folder = _output(config) if resume else new_run_folder(_output(config))
    validation = Validation(val_loader, device, precision, folder)
    trainer = build_trainer(
        config.train, model, loader, folder, _checkpoint_extra(config, data), validation, state, precision
    )
    if state is None:
        describe_run(folder, plain, list(data.train.classes), sys.argv)
    say(console, f"device {device}, {precision}: {why}")
    say(
        console,
        f"{trainer.steps} steps of {config.train.batch_size * config.train.accumulate} pictures, lr "
        f"{scaled_lr(config.train.lr, config.train.batch_size, config.train.accumulate):.3g} "
        f"({config.train.lr:.3g} for 16 pictures a step), run folder {folder}",
    )
    result = trainer.run()
    if loader.skipped:
        say(console, f"{len(loader.skipped)} unreadable pictures were left out: {', '.join(loader.skipped)}")
    return result, folder


def _build_model(config: Config, data: TrainingData, fresh: bool, console: Console) -> FasterRCNN:
    """The detector with the weights that the config names; a resumed run brings its own and needs none of them."""
    seed_step(config.train.seed, -1)
    model = build_detector(
        config.model,
        len(data.train.classes),
        pretrained=fresh,
        on_loaded=lambda report: print_report(console, report, f"weights of {config.model.backbone.weights}"),
    )
    if fresh and config.model.weights is not None:
        _start_from(config.model.weights, model, data.train.classes, console)
    return model


def _print_data(data: TrainingData, console: Console) -> None:
    for name, index in (("train", data.train), ("val", data.val)):
        boxes = int((~index.crowd).sum())
        notes = [f"{index.clipped} boxes clipped to the picture"] if index.clipped else []
        notes += [f"{index.dropped} bad rows dropped, such as {index.dropped_rows[0]}"] if index.dropped else []
        say(
            console,
            f"{name}: {len(index)} pictures of {index.images}, {boxes} boxes of {index.annotations}"
            + "".join(f", {note}" for note in notes),
        )
    classes = data.train.classes
    shown = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    say(console, f"{len(classes)} classes: {shown}; short side {data.short_side} px")


def _start_from(path: str, model: FasterRCNN, classes: tuple[str, ...], console: Console) -> None:
    stored = open_checkpoint(path)
    report = load_detector_weights(model, best_weights(stored), stored["classes"], classes)
    print_report(console, report, f"weights of {path}")


def _output(config: Config) -> Path:
    return Path(config.train.output or f"runs/{config.name}").expanduser()


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
