"""Classifiers trained through the real command on objects of real pictures, and detectors that start from them."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from detkit.backbones import CLASSIFIERS
from detkit.build import build_backbone, build_classifier, build_detector
from detkit.build.classification import build_training
from detkit.cli.train_cls import detector_command
from detkit.config import ClassifierConfig, config_from_dict, config_names, detector_config_name, load_config
from detkit.engine.checkpoint import best_weights, load_checkpoint
from detkit.models.classification import ClassifierTraining
from detkit.predict import Detector
from detkit.weights import load_backbone_weights
from tests.conftest import TINY, Outcome, metric_rows
from tests.object_crops import cut_objects
from tests.tiny_run import assert_same

Command = Callable[..., Outcome]
RECIPES = [name for name in config_names() if name.startswith("cls/")]

# A quarter of MobileNet V2, with its dropout, on pictures of 40 px: a step takes a fraction of a second.
SMALL = (
    "cls/mobilenet_v2",
    "model.backbone.options={'width': 0.25}",
    "data.size=40",
    "data.val_short_side=44",
    "data.workers=0",
    "train.batch_size=3",
    "train.epochs=3",
    "train.lr=0.01",
    "train.label_smoothing=0.1",
    "train.ema_decay=0.9",
    "train.log_every=1",
    "train.device=cpu",
    "train.precision=float32",
)


@pytest.fixture(scope="module")
def objects(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 objects of four classes to train on, 4 to validate."""
    return cut_objects(real_data, tmp_path_factory.mktemp("objects"))


@pytest.fixture
def small_run(objects: Path, command: Command, tmp_path: Path) -> Path:
    """The run folder of a small classifier that was trained for three epochs."""
    folder = tmp_path / "whole"
    outcome = command("train-cls", *SMALL, f"data.root={objects}", f"train.output={folder}")
    assert outcome.status == 0, outcome.err
    return folder


def test_a_run_end_to_end(small_run: Path, objects: Path) -> None:
    rows = metric_rows(small_run)
    steps = [row for row in rows if "loss_class" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]  # 8 pictures, 3 a batch, the third batch left out
    scores = [row for row in rows if "top1" in row]
    assert [row["step"] for row in scores] == [2, 4, 6]
    assert all(0 <= row["top1"] <= row["top5"] == 1.0 and row["val_loss"] > 0 for row in scores)
    state = load_checkpoint(small_run / "best.pth")
    assert state["classes"] == ["WBC", "crosswalk", "person", "stop"]
    assert state["config"]["task"] == "classification"
    classifier = build_classifier("mobilenet_v2", 4, width=0.25)
    classifier.load_state_dict(best_weights(state))  # flat names, the net's own
    assert state["evaluation"]["top1"] == max(row["top1"] for row in scores)


def test_stopped_and_resumed_with_workers_it_ends_with_the_same_bits(
    small_run: Path, objects: Path, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "stopped"
    arguments = ("train-cls", *SMALL, f"data.root={objects}", f"train.output={folder}")
    calls = []

    def interrupt(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, ClassifierTraining):
            calls.append(1)
            if len(calls) == 3:  # in the middle of the second epoch
                os.kill(os.getpid(), signal.SIGTERM)

    handle = register_module_forward_pre_hook(interrupt)
    try:
        assert command(*arguments).status == 143
    finally:
        handle.remove()
    assert load_checkpoint(folder / "last.pth")["training"]["step"] == 3
    refused = command(*arguments, "--resume", "train.label_smoothing=0.2")
    assert refused.status == 2
    assert "train.label_smoothing: 0.1 -> 0.2" in refused.err
    outcome = command(*arguments, "--resume", "data.workers=2")
    assert outcome.status == 0, outcome.err
    whole, resumed = (load_checkpoint(run / "last.pth") for run in (small_run, folder))
    for key in ("model", "ema", "training", "classes"):
        assert_same(resumed[key], whole[key], key)
    assert metric_rows(folder) == metric_rows(small_run)


def test_what_is_wrong_is_said_with_status_2(objects: Path, command: Command, tmp_path: Path) -> None:
    output = f"train.output={tmp_path / 'run'}"
    for arguments, message in (
        (("train-cls", "cls/resnet18", f"data.root={tmp_path}/none"), "there is no folder"),
        (("train-cls", "cls/resnet18", f"data.root={objects}", "data.sizes=3"), "did you mean data.size"),
        (
            ("train-cls", "cls/resnet18", f"data.root={objects}", "data.size=300"),
            "does not fit into a short side of 256",
        ),
        (("train-cls", "cls/resnet18", f"data.root={objects}", "model.backbone.weights=imagenet"), "must be none"),
        (("train-cls", "cls/resnet18", f"data.root={objects}", "model.backbone.name=resnet5"), "did you mean resnet50"),
        (("train-cls", "cls/resnet18", f"data.root={objects}", "model.backbone.options={'a': 1}"), "no option 'a'"),
        (("train-cls", "fpn_r50"), "is a config of a detector, not of a classifier: use `detkit train`"),
        (("train-cls", "cls/alexnet", f"data.root={objects}", "data.size=33"), "data.size=33 is too small for alexnet"),
        (("train-cls", "cls/inception_v3", f"data.root={objects}", "data.size=64"), "too small for inception_v3"),
        (
            ("train-cls", "cls/resnet18", f"data.root={objects}", "model.backbone.options.norm=group"),
            "set model.backbone.norm instead",
        ),
        (
            ("train", "fpn_mobilenet_v2", "model.backbone.options.width=wide"),
            "option width of the backbone mobilenet_v2",
        ),
        (("train", "fpn_alexnet", "model.backbone.options.lrn=maybe"), "should be a valid boolean, got 'maybe'"),
        (("train", "cls/resnet18"), "is a config of a classifier, not of a detector: use `detkit train-cls`"),
    ):
        outcome = command(*arguments, output)
        assert outcome.status == 2, outcome.out
        assert message in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_broken_picture_ends_the_run_before_it_starts(objects: Path, command: Command, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    for path in objects.rglob("*.png"):
        copy = root / path.relative_to(objects)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes()[: 500 if path.parent.name == "stop" and "val" in path.parts else None])
    outcome = command("train-cls", *SMALL, f"data.root={root}", f"train.output={tmp_path / 'run'}")
    assert outcome.status == 2
    assert str(root / "val" / "stop") in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_classifiers_checkpoint_is_no_detector(small_run: Path) -> None:
    with pytest.raises(ValueError, match=r"that of a net trained for classification.*model\.backbone\.weights=PATH"):
        Detector.load(small_run / "best.pth", device="cpu")


def test_a_detector_starts_from_the_average_and_reports_what_it_took(
    small_run: Path, shapes: Path, command: Command, tmp_path: Path
) -> None:
    weights = small_run / "best.pth"
    detector = (
        "train", *TINY, "model.backbone.name=mobilenet_v2", "model.backbone.options={'width': 0.25}",
        f"model.backbone.weights={weights}", f"data.root={shapes}", "train.iterations=1", "model.neck.extra_level=none",
    )  # fmt: skip
    strides = len(build_backbone("mobilenet_v2", width=0.25).strides)
    sizes = f"model.rpn.anchor_sizes={tuple(12 * 2**level for level in range(strides))}"
    outcome = command(*detector, sizes, f"train.output={tmp_path / 'detector'}")
    assert outcome.status == 0, outcome.err
    assert "loaded" in outcome.out and "missing" in outcome.out
    assert "classifier." in outcome.out  # left over
    backbone = build_backbone("mobilenet_v2", width=0.25, weights=str(weights))
    average = load_checkpoint(weights)["ema"]
    assert all(torch.equal(value, average[name]) for name, value in backbone.state_dict().items())
    for other in ("resnet18", "densenet121"):
        refused = command(*detector, f"model.backbone.name={other}", "model.backbone.options={}",
            f"train.output={tmp_path / other}")  # fmt: skip
        assert refused.status == 2
        assert "tensors fit this architecture" in refused.err
        assert not (tmp_path / other).exists()


def test_the_printed_command_repeats_what_the_net_was_trained_with() -> None:
    keys = ["model.backbone.options.groups=8", "model.backbone.norm=group", "model.pixel_std=(1,1,1)"]
    net = load_config("cls/shufflenet_v1", keys, kind=ClassifierConfig).model
    expected = (
        "detkit train fpn_shufflenet_v1 model.backbone.weights=w.pth model.backbone.norm=group "
        "model.backbone.options.groups=8 'model.pixel_std=(1.0, 1.0, 1.0)'"
    )
    assert detector_command(net, Path("w.pth")) == expected
    for backbone in ("resnet50", "efficientnet_lite0", "inception_v3"):
        plain = load_config(f"cls/{backbone}", kind=ClassifierConfig).model
        config = load_config(detector_config_name(backbone)).name
        assert detector_command(plain, Path("w.pth")) == f"detkit train {config} model.backbone.weights=w.pth"


def test_residual_scaling_is_set_on_the_command_line() -> None:
    config = load_config("fpn_inception_resnet_v2", ["model.backbone.options.scales=(0.3, 0.2, 0.1)"])
    again = config_from_dict(json.loads(json.dumps(config.model_dump(mode="json"))))
    with torch.device("meta"):
        model = build_detector(again.model, 2, pretrained=False)
    assert (model.backbone.repeat[0].scale, model.backbone.repeat_2[0].scale) == (0.3, 0.1)


def test_a_larger_net_with_the_same_names_is_another_architecture() -> None:
    state = build_classifier("resnet34", 3).state_dict()
    with pytest.raises(ValueError, match=r"resnet18.*larger net"):
        load_backbone_weights(build_backbone("resnet18"), "resnet18", state, "w.pth")
    report = load_backbone_weights(build_backbone("resnet34"), "resnet34", state, "w.pth")
    assert report.unexpected == ["fc.bias", "fc.weight"]


def test_there_is_a_recipe_for_each_classifier() -> None:
    assert set(RECIPES) == {f"cls/{name}" for name in CLASSIFIERS}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_loads_and_builds(name: str) -> None:
    config = load_config(name, kind=ClassifierConfig)
    assert (config.name, config.model.backbone.name) == (name.replace("/", "_"), name.removeprefix("cls/"))
    with torch.device("meta"):
        training = build_training(config.model, 10, config.train.label_smoothing)
    assert any(tuple(value.shape) in ((10,), (10, 1024)) for value in training.state_dict().values())


def test_rates_are_the_papers() -> None:
    """What `train.lr` becomes at the batch size of the recipe."""
    papers = {"alexnet": 0.01, "vgg16": 0.01, "resnet50": 0.1, "inception_v3": 0.045, "mobilenet_v2": 0.045}
    papers |= {"densenet121": 0.1, "detnet59": 0.1, "squeezenet1_1": 0.04, "shufflenet_v2": 0.5}
    for name, rate in papers.items():
        train = load_config(f"cls/{name}", kind=ClassifierConfig).train
        assert train.lr * train.batch_size * train.accumulate / 16 == pytest.approx(rate)


@pytest.mark.slow
def test_detnet59_learns_real_objects_and_a_detector_starts_from_it(
    objects: Path, shapes: Path, command: Command, tmp_path: Path
) -> None:
    small = ("data.size=64", "data.val_short_side=64", "data.crop=area", "data.crop_scale=(0.8, 1.0)", "data.workers=0")
    short = ("train.batch_size=8", "train.iterations=10", "train.lr=0.02", "train.log_every=1", "train.device=cpu")
    run = tmp_path / "detnet59"
    outcome = command(
        "train-cls", "cls/detnet59", f"data.root={objects}", f"train.output={run}", *small, *short,
        "train.eval_every=10", "train.save_every=10", "train.precision=float32", "train.schedule=cosine",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    losses = [row["loss"] for row in metric_rows(run) if "loss" in row]
    assert losses[-1] < losses[0] / 2
    detector = (
        "train", *TINY, "model.backbone.name=detnet59", f"model.backbone.weights={run / 'best.pth'}",
        "model.neck.extra_level=none", f"data.root={shapes}", "train.iterations=1", "data.limit=2",
    )  # fmt: skip
    outcome = command(*detector, f"train.output={tmp_path / 'detector'}")
    assert outcome.status == 0, outcome.err
    tensors = len(build_backbone("detnet59").state_dict())
    report = {words[1]: words[3] for words in map(str.split, outcome.out.splitlines()) if len(words) > 3}
    assert report["loaded"] == str(tensors)
    assert (report["missing"], report["unexpected"]) == ("0", "2")
    assert "fc.bias, fc.weight" in outcome.out
    refused = command(*detector, "model.backbone.name=resnet50", f"train.output={tmp_path / 'other'}")
    assert refused.status == 2
    assert "tensors fit this architecture" in refused.err
