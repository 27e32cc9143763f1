"""`detkit train CONFIG [section.key=value ...]`: train a detector, score it, draw what it finds."""

import shlex
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
from detkit.cli.checkup import print_checkup
from detkit.cli.errors import Debug, Overrides, run_command
from detkit.cli.output import print_choice, print_plan, print_report, print_skipped, say
from detkit.cli.resuming import Resume, ResumeAnyway, resume_run
from detkit.config import Config, load_config
from detkit.engine.checkpoint import BEST, best_weights
from detkit.engine.distributed import ALONE, World, joined, world_from_environment
from detkit.engine.interface import TrainResult
from detkit.engine.loggers import check_loggers
from detkit.engine.replicas import enter_run, find_run
from detkit.engine.run import describe_run, new_run_folder
from detkit.engine.seeding import seed_step, use_deterministic_algorithms
from detkit.evaluation.table import metrics_table
from detkit.models.faster_rcnn import FasterRCNN
from detkit.ready_made import open_checkpoint
from detkit.validation import Validation, check_loader, show_progress
from detkit.weights import load_detector_weights

# Reading every validation picture once more before training is worth its time on sets up to this size.
SMALL_SET = 1000


def train(
    config: Annotated[str, typer.Argument(help="A config file, or the name of one of detkit's: fpn_r50, ...")],
    overrides: Overrides = None,
    resume: Resume = False,
    resume_anyway: ResumeAnyway = False,
    debug: Debug = False,
) -> None:
    """Train a detector on COCO-format data, evaluate it as it learns, and keep the best."""
    world = world_from_environment()
    console = Console(quiet=world.rank > 0)
    settings = load_config(config, overrides or [])
    with joined(world, settings.train.distributed_timeout_seconds):
        result, folder = run_training(settings, resume or resume_anyway, console, world, resume_anyway)
    if result.metrics:
        shown = {key: value for key, value in result.metrics.items() if key.startswith("A")}
        console.print(metrics_table(shown))
    if result.best is not None and result.best >= 0:
        say(console, f"best AP {result.best:.3f}: {folder / 'best.pth'}")
    else:
        say(console, f"the validation split shows no objects, so nothing was scored: {folder / 'last.pth'}")


def run_training(
    config: Config, resume: bool, console: Console, world: World = ALONE, anyway: bool = False
) -> tuple[TrainResult, Path]:
    """Everything between a config and a trained detector. Returns the result and the run folder."""
    with world.together():
        device = choose_device(config.train.device, world)
        if config.train.deterministic:
            use_deterministic_algorithms()
        check_loggers(config.train.loggers)
    precision, why = world.broadcast(choose_precision(config.train.precision, device))
    if world.rank == 0:
        print_checkup(config, console)
    data = world.in_turn(lambda: _read_data(config, console))
    config = config.replace({"data.short_side": data.short_side})
    _print_data(data, console)
    plain = config.model_dump(mode="json")
    found = find_run(_output(config), resume, world)
    with world.together():
        resumed = None if found is None else resume_run(found, plain, _fingerprint(data), world, anyway, console)
    model = world.in_turn(lambda: _build_model(config, data, resumed is None, console)).to(device)
    loader = build_train_loader(config, data, device, world)
    val_loader = build_val_loader(config.data, data.val, data.short_side, config.train.batch_size, world)
    if len(data.val) <= SMALL_SET:
        check_loader(val_loader, world)
    folder = found or new_run_folder(_output(config), world)
    owner = enter_run(folder, world)
    validation = Validation(val_loader, device, precision, folder, world, config.train.val_losses)
    extra = _checkpoint_extra(config, data) | {"processes": world.size}
    trainer = build_trainer(
        config.train, model, loader, folder, extra, validation, resumed, precision, world=world, owner=owner
    )
    if owner and (resumed is None or resumed.differences):
        describe_run(folder, plain, list(data.train.classes), sys.orig_argv, _uses(folder), world.size)
    print_choice(console, model, device, precision, why)
    print_plan(console, config.train, trainer.steps, folder, world)
    result = trainer.run()
    print_skipped(console, loader.skipped, world)
    return result, folder


def _read_data(config: Config, console: Console) -> TrainingData:
    with show_progress("drawing Shapes", console) as bar:
        task = bar.add_task("", visible=False)
        return build_data(config.data, lambda done, total: bar.update(task, completed=done, total=total, visible=True))


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


def _uses(folder: Path) -> list[str]:
    """Command lines for the checkpoints of a run."""
    best = shlex.quote(str(folder / BEST))
    return [f"detkit eval {best}", f"detkit demo {best} photo.jpg --output out/", f"detkit plot {folder}"]


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
