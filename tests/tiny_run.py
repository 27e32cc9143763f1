"""A training run of seconds, real in every part: conv, batch norm, dropout; also a program, to be killed.

python tests/tiny_run.py FOLDER [STEP_SECONDS] [WORKERS]: trains, resuming when FOLDER holds a checkpoint.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detkit.engine.checkpoint import load_checkpoint, newest_checkpoint
from detkit.engine.interface import TrainResult
from detkit.engine.log import TIME_FIELDS
from detkit.engine.schedule import build_optimizer, build_scheduler, total_steps
from detkit.engine.signals import Stopped
from detkit.engine.train import Trainer
from detkit.types import Batch, Target


class TinyNet(nn.Module):
    """Two losses over the mean colour and the number of boxes; dropout draws from torch's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 2)

    def forward(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        pictures = torch.stack(images).float() / 255
        wanted = torch.stack([pictures.mean((1, 2, 3)), pictures.amax((1, 2, 3))], 1)
        error = (self.head(self.backbone(pictures).mean((2, 3))).float() - wanted).abs().mean(0)
        return {"loss_mean": error[0], "loss_max": error[1]}


class TinyLoader:
    """Five batches of two pictures, each a function of (epoch, index)."""

    steps_per_epoch = 5

    def __init__(self, workers: int = 0, seconds: float = 0.0) -> None:
        self.workers, self.seconds = workers, seconds
        self.read: list[tuple[int, int]] = []

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        indices = [(epoch, index) for index in range(start, self.steps_per_epoch)]
        if self.workers:
            loader = torch.utils.data.DataLoader(
                TinyBatches(indices, self.seconds), batch_size=None, num_workers=self.workers
            )
            yield from loader
            return
        for key in indices:
            self.read.append(key)
            time.sleep(self.seconds)
            yield make_batch(*key)


class TinyBatches(torch.utils.data.Dataset[Batch]):
    def __init__(self, keys: list[tuple[int, int]], seconds: float) -> None:
        self.keys, self.seconds = keys, seconds

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Batch:
        time.sleep(self.seconds)
        return make_batch(*self.keys[index])


def make_batch(epoch: int, index: int) -> Batch:
    generator = torch.Generator().manual_seed(1000 * epoch + index)
    images = [torch.randint(0, 256, (3, 6, 6), dtype=torch.uint8, generator=generator) for _ in range(2)]
    targets: list[Target] = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    ids = [100 * epoch + 10 * index + k for k in range(2)]
    return Batch(images, targets, [{"image_id": i, "file_name": f"{i}.jpg", "height": 6, "width": 6} for i in ids])


def evaluate(module: nn.Module, step: int) -> dict[str, float]:
    """Numbers that depend on all weights and buffers, and on the seed; and a draw that must not matter."""
    assert not module.training
    torch.rand(3)
    total = sum(value.double().abs().sum().item() for value in module.state_dict().values())
    return {"AP": total % 1.0, "AP50": torch.initial_seed() % 1000 / 1000}


def build_trainer(folder: Path, loader: Any = None, kind: str = "sgd", **settings: Any) -> Trainer:
    """A fresh trainer that goes on from the folder's newest checkpoint when there is one."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(7)
    model = TinyNet().to(memory_format=torch.channels_last)
    loader = loader or TinyLoader()
    settings = {
        "accumulate": 2,
        "ema_decay": 0.9,
        "log_every": 2,
        "seed": 3,
        **settings,
    }
    steps = settings.pop("steps", None) or total_steps(loader.steps_per_epoch, settings["accumulate"], epochs=3)
    optimizer = build_optimizer(model, kind, 0.05, 1e-4)  # type: ignore[arg-type]
    scheduler = build_scheduler(optimizer, "cosine", steps, warmup_steps=2)
    found = newest_checkpoint(folder)
    extra = {"config": {"tiny": True}, "classes": ["a"], "category_ids": [1], **settings.pop("extra", {})}
    return Trainer(
        model, loader, optimizer, scheduler, folder, steps, extra,
        resume=found[1] if found else None, **{"evaluate": evaluate, **settings},
    )  # fmt: skip


def rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of the run without the times."""
    return without_times([json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()])


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIME_FIELDS} for row in rows]


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Equal to the last bit, all the way down."""
    if isinstance(a, Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    else:
        assert a == b, where


def assert_same_run(folder: Path, reference: Path) -> None:
    for name in ("last.pth", "best.pth"):
        assert_same(load_checkpoint(folder / name), load_checkpoint(reference / name), name)
    assert rows(folder) == rows(reference)


def main(folder: str, seconds: str = "0", workers: str = "0") -> int:
    loader = TinyLoader(int(workers), float(seconds))
    try:
        result: TrainResult = build_trainer(Path(folder), loader).run()
    except Stopped as stopped:
        return stopped.exit_status
    print("finished at step", result.step)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
