"""`detkit train-cls CONFIG data.root=IMAGENET [section.key=value ...]`: pretrain a backbone as a classifier."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from detkit.build import build_trainer, choose_device, choose_precision
from detkit.build.classification import (
    FolderLoader,
    Folders,
    build_folders,
    build_loaders,
    build_training,
    check_picture_size,
)
from detkit.cli.errors import Debug, Overrides, run_command
from detkit.cli.output import print_choice, print_plan, print_skipped, say
from detkit.cli.resuming import Resume, ResumeAnyway, resume_run
from detkit.config import ClassifierConfig, ClassifierModelConfig, detector_config_name, load_config
from detkit.engine.checkpoint import BEST
from detkit.engine.distributed import ALONE, World, joined, world_from_environment
from detkit.engine.interface import Evaluate, TrainResult
from detkit.engine.loggers import check_loggers
from detkit.engine.replicas import enter_run, find_run
from detkit.engine.run import describe_run, new_run_folder
from detkit.engine.seeding import seed_step, use_deterministic_algorithms
from detkit.evaluation.classification import evaluate_classifier

# Reading every validation picture once before training is worth its time on sets up to this size.
SMALL_SET = 1000


def train_cls(
    config: Annotated[str, typer.Argument(help="A config file, or the name of one of detkit's: cls/detnet59, ...")],
    overrides: Overrides = None,
    resume: Resume = False,
    resume_anyway: ResumeAnyway = False,
    debug: Debug = False,
) -> None:
    """Train a classifier on a folder of pictures for each class; its checkpoint starts a detector's backbone."""
    world = world_from_environment()
    console = Console(quiet=world.rank > 0)
    settings = load_config(config, overrides or [], kind=ClassifierConfig)
    with joined(world, settings.train.distributed_timeout_seconds):
        result, folder = run_classifier_training(settings, resume or resume_anyway, console, world, resume_anyway)
    best = folder / ("last.pth" if result.best is None else "best.pth")
    shown = ", ".join(f"{key} {value:.4f}" for key, value in result.metrics.items() if key.startswith("top"))
    say(console, f"last {shown}, best top1 {result.best or 0:.4f}: {best}")
    say(console, f"a detector starts from it: {detector_command(settings.model, best)}")


def detector_command(net: ClassifierModelConfig, weights: Path) -> str:
    """How a detector starts from the weights of this net, with the keys in which its own config differs."""
    name = detector_config_name(net.backbone.name)
    detector = load_config(name).model
    keys: dict[str, object] = {"backbone.weights": weights}
    if net.backbone.norm != "default":
        keys["backbone.norm"] = net.backbone.norm
    for key in ("norm_eps", "stride_in_1x1"):
        if (value := getattr(net.backbone, key)) != getattr(detector.backbone, key):
            keys[f"backbone.{key}"] = value
    keys |= {f"backbone.options.{key}": value for key, value in net.backbone.options.items()}
    for key in ("pixel_mean", "pixel_std"):
        if (value := getattr(net, key)) != getattr(detector, key):
            keys[key] = value
    return " ".join(["detkit train", name, *(shlex.quote(f"model.{key}={value}") for key, value in keys.items())])


def run_classifier_training(
    config: ClassifierConfig, resume: bool, console: Console, world: World = ALONE, anyway: bool = False
) -> tuple[TrainResult, Path]:
    """Everything between a config and a trained classifier. Returns the result and the run folder."""
    with world.together():
        device = choose_device(config.train.device, world)
        if config.train.deterministic:
            use_deterministic_algorithms()
        check_loggers(config.train.loggers)
        check_picture_size(config)
        folders = build_folders(config.data)
        seed_step(config.train.seed, -1)
        model = build_training(config.model, len(folders.train.classes), config.train.label_smoothing).to(device)
        loader, val_loader = build_loaders(config, folders, device, world)
    precision, why = world.broadcast(choose_precision(config.train.precision, device))
    plain = config.model_dump(mode="json")
    output = Path(config.train.output or f"runs/{config.name}").expanduser()
    found = find_run(output, resume, world)
    with world.together():
        resumed = None if found is None else resume_run(found, plain, folders.fingerprint(), world, anyway, console)
        _print_data(folders, console)
        if len(folders.val) <= SMALL_SET:
            for _ in val_loader.epoch(0):
                pass  # a picture that cannot be read ends the run here, not after an epoch
    folder = found or new_run_folder(output, world)
    owner = enter_run(folder, world)
    evaluate = _evaluation(val_loader, device, precision, world)
    extra = _checkpoint_extra(config, folders) | {"processes": world.size}
    trainer = build_trainer(
        config.train, model, loader, folder, extra, evaluate, resumed, precision, "top1", world, owner
    )
    if owner and (resumed is None or resumed.differences):
        uses = [detector_command(config.model, folder / BEST)]
        describe_run(folder, plain, list(folders.train.classes), sys.orig_argv, uses, world.size)
    print_choice(console, model, device, precision, why)
    print_plan(console, config.train, trainer.steps, folder, world)
    result = trainer.run()
    print_skipped(console, loader.skipped, world)
    return result, folder


def _evaluation(loader: FolderLoader, device: torch.device, precision: str, world: World) -> Evaluate:
    def evaluate(module: nn.Module, step: int) -> dict[str, float]:
        def predict(images: list[Tensor]) -> Tensor:
            moved = [image.to(device) for image in images]
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                return module.predict(moved)  # type: ignore[operator]

        return evaluate_classifier(predict, loader.epoch(0), total=world.total)

    return evaluate


def _print_data(folders: Folders, console: Console) -> None:
    for name, index in (("train", folders.train), ("val", folders.val)):
        say(console, f"{name}: {len(index)} pictures of {index.root}")
    classes = folders.train.classes
    shown = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    say(console, f"{len(classes)} classes: {shown}")


def _checkpoint_extra(config: ClassifierConfig, folders: Folders) -> dict[str, object]:
    classes = list(folders.train.classes)
    return {
        "config": config.model_dump(mode="json"),
        "classes": classes,
        "category_ids": list(range(len(classes))),
        "data": folders.fingerprint(),
    }


def main() -> None:
    """Entry point of tools/train_cls.py."""
    run_command(train_cls)
