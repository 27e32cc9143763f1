"""Stages that train from some epoch on: weights, moments and averages, and a resumed run, to the bit."""

import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detkit.backbones.resnet import ResNet
from detkit.build.thawing import Thawing
from detkit.build.training import build_trainer
from detkit.config import TrainConfig
from detkit.engine.checkpoint import load_checkpoint, newest_checkpoint
from detkit.engine.resume import Resumed
from detkit.engine.signals import Stopped
from detkit.engine.train import Trainer
from detkit.types import Target
from tests.test_train_loop import Interrupted
from tests.tiny_run import TinyLoader, assert_same, evaluate


class Small(nn.Module):
    """ResNet-18 of two frozen stages under a mean, on pictures of 6 px drawn large."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet(18, frozen_stages=2)
        self.head = nn.Linear(512, 1)

    def forward(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        pictures = torch.nn.functional.interpolate(torch.stack(images).float() / 255, size=(36, 36))
        return {"loss": self.head(self.backbone(pictures)[-1].mean((2, 3))).square().mean()}


def trainer(folder: Path, thaw_at: int | None, loader: TinyLoader | None = None) -> Trainer:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(1)
    settings = {"epochs": 3, "batch_size": 2, "accumulate": 2, "optimizer": "adamw", "lr": 0.01, "warmup_steps": 1}
    options = TrainConfig(**settings, ema_decay=0.9, thaw_at=thaw_at, loggers=())
    found = newest_checkpoint(folder)
    extra = {"config": {}, "classes": ["a"], "category_ids": [1]}
    resumed = Resumed(found[1], []) if found else None
    return build_trainer(options, Small(), loader or TinyLoader(), folder, extra, evaluate, resumed, "float32")


STEM = "backbone.conv1.weight"


@pytest.mark.parametrize("thaw_at", [None, 2])
def test_frozen_stages_move_from_their_epoch_on(thaw_at: int | None, tmp_path: Path) -> None:
    running = trainer(tmp_path, thaw_at)
    start = running.model.get_parameter(STEM).detach().clone()
    running.run()
    before, after = (load_checkpoint(tmp_path / name) for name in ("last.prev.pth", "last.pth"))  # epochs 2 and 3
    assert torch.equal(before["model"][STEM], start) == (thaw_at is None)
    assert torch.equal(after["model"][STEM], before["model"][STEM]) == (thaw_at is None)
    assert torch.equal(after["ema"][STEM], start) == (thaw_at is None)
    counted = after["model"]["backbone.bn1.num_batches_tracked"]
    assert int(counted) == (10 if thaw_at else 0)  # 5 batches an epoch
    steps = {int(entry["step"]) for entry in after["training"]["optimizer"]["state"].values()}
    assert steps == ({6, 9} if thaw_at else {9})  # 3 steps an epoch


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_resumed_run_ends_with_the_same_bits(at: int, tmp_path: Path) -> None:
    trainer(tmp_path / "whole", 2).run()
    with pytest.raises(Stopped):
        trainer(tmp_path / "cut", 2, Interrupted(at, signal.SIGTERM)).run()
    trainer(tmp_path / "cut", 2).run()
    assert_same(*(load_checkpoint(tmp_path / name / "last.pth") for name in ("cut", "whole")))


def test_nothing_to_thaw_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"train\.thaw_at=2: no stage is frozen; set model\.backbone\.frozen_stages"):
        Thawing(nn.Linear(2, 2), 2)
