"""What each of two processes does for tests/test_distributed.py; also a program, one process of several.

python tests/ranks.py FOLDER CASE ...: runs the cases in order; FOLDER/CASE-RANK then holds what each returned.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detkit.data.coco import load_coco
from detkit.data.dataset import DetectionDataset
from detkit.data.loader import EpochLoader
from detkit.engine.distributed import World, data_parallel, joined, world_from_environment
from detkit.engine.replicas import enter_run
from detkit.engine.run import new_run_folder
from detkit.engine.signals import Stopped
from detkit.engine.step import Stepper
from detkit.engine.train import Trainer
from detkit.types import Batch, Target
from detkit.validation import Validation
from tests.tiny_detector import picture, target, tiny_detector
from tests.tiny_run import TinyLoader, TinyNet, build_trainer, make_batch

# Samplers that take every anchor and every proposal, so that no draw tells one process from two.
TAKES_ALL = {
    "rpn__samples": 100_000,
    "rpn__positive_fraction": 1.0,
    "roi_head__samples": 100_000,
    "roi_head__positive_fraction": 1.0,
}


def detector(norm: str) -> nn.Module:
    return tiny_detector(backbone__norm=norm, **TAKES_ALL)


def batch(first: int, count: int, empty_from: int = 100) -> Batch:
    """Pictures `first`, `first` + 1, ... of one size; those from `empty_from` on show nothing."""
    numbers = range(first, first + count)
    targets: list[Target] = [
        target() if i >= empty_from else target((5 + i, 6, 30, 28), (20, 20, 60 - i, 50)) for i in numbers
    ]
    metas = [{"image_id": i, "file_name": f"{i}.jpg", "height": 64, "width": 64} for i in numbers]
    return Batch([picture(64, 64, seed=i) for i in numbers], targets, metas)  # type: ignore[arg-type]


def gradients(model: nn.Module, batches: list[Batch], world: World) -> dict[str, Any]:
    """Losses and gradients of a step; the learning rate is zero."""
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.0), torch.device("cpu"), world=world)
    result = stepper.step(batches, 1)
    return {
        "losses": result.losses,
        "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
    }


def frozen(world: World, folder: Path) -> Any:
    return gradients(detector("frozen"), [batch(2 * world.rank, 2)], world)


def group(world: World, folder: Path) -> Any:
    return gradients(detector("group"), [batch(2 * world.rank, 2)], world)


def accumulated(world: World, folder: Path) -> Any:
    return gradients(detector("group"), [batch(2 * world.rank, 1), batch(2 * world.rank + 1, 1)], world)


def without_objects(world: World, folder: Path) -> Any:
    return gradients(detector("group"), [batch(2 * world.rank, 2, empty_from=2)], world)


class Branches(nn.Module):
    """A layer for pictures with objects, which the batch of a rank may not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.objects = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, images: list[torch.Tensor], targets: list[Target]) -> dict[str, torch.Tensor]:
        pictures = torch.stack([image.float().mean((1, 2)) / 255 for image in images])
        some = any(len(target["boxes"]) for target in targets)
        return {"loss": self.always(pictures).mean() + (self.objects(pictures).mean() if some else 0.0)}


def branches() -> nn.Module:
    torch.manual_seed(0)
    return Branches()


def unreached(world: World, folder: Path) -> Any:
    return gradients(branches(), [batch(2 * world.rank, 2, empty_from=2)], world)


def thawed(world: World, folder: Path) -> Any:
    """A layer that was frozen when the model was wrapped and trains afterwards."""
    model = branches()
    model.get_submodule("objects").requires_grad_(False)
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.0), torch.device("cpu"), world=world)
    stepper.step([batch(2 * world.rank, 2)], 1)
    model.get_submodule("objects").requires_grad_(True)
    stepper.step([batch(2 * world.rank, 2)], 2)
    return {"gradients": {name: p.grad for name, p in model.named_parameters()}}


class RankLoader(TinyLoader):
    """Every world_size-th of the batches 0, 1, ...; `before(epoch, index)` is called before each."""

    def __init__(self, world: World, before: Callable[[int, int], None] = lambda epoch, index: None) -> None:
        super().__init__()
        self.world, self.before = world, before

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        for index in range(start, self.steps_per_epoch):
            self.before(epoch, index)
            yield make_batch(epoch, index * self.world.size + self.world.rank)


def rank_trainer(folder: Path, world: World, loader: TinyLoader | None = None, **settings: Any) -> Trainer:
    loader = loader or RankLoader(world)
    return build_trainer(folder, loader, world=world, owner=world.rank == 0, **settings)


def training(world: World, folder: Path) -> Any:
    """Batch norm, dropout, moving average and accumulation over three epochs; each rank measures something else."""
    trainer = rank_trainer(folder / "training", world, evaluate=lambda module, step: {"AP": world.rank + step / 10})
    result = trainer.run()
    assert trainer.ema is not None
    states = {"model": trainer.model.state_dict(), "ema": trainer.ema.state_dict()}
    return {**states, "step": result.step, "best": result.best, "rows": trainer._log.rows}


def _error_of(run: Callable[[], Any]) -> tuple[str, str]:
    try:
        run()
    except (Exception, Stopped) as error:
        return type(error).__name__, str(error)
    return "none", ""


def not_finite(world: World, folder: Path) -> Any:
    class Poisoned(TinyNet):
        def forward(self, images: list[torch.Tensor], targets: list[Target]) -> dict[str, torch.Tensor]:
            losses = super().forward(images, targets)
            return {**losses, "loss_max": losses["loss_max"] * float("nan")} if trainer.step == 3 else losses

    trainer = rank_trainer(folder / "not_finite", world)
    if world.rank == 1:
        trainer.model.__class__ = Poisoned
    before: dict[str, torch.Tensor] = {}

    def remember(module: nn.Module, inputs: Any) -> None:
        if trainer.step == 3 and not before:
            before.update({name: p.detach().clone() for name, p in module.named_parameters()})

    trainer.model.register_forward_pre_hook(remember)
    error = _error_of(trainer.run)
    same = all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters())
    return {"error": error, "weights untouched": same, "step": trainer.step}


def bad_picture(world: World, folder: Path) -> Any:
    def before(epoch: int, index: int) -> None:
        if world.rank == 1 and (epoch, index) == (0, 4):
            raise ValueError("cannot read the picture 7.jpg")

    return _error_of(rank_trainer(folder / "bad_picture", world, RankLoader(world, before)).run)


def signalled(world: World, folder: Path) -> Any:
    """Rank 1 alone gets SIGTERM while it fetches the first batch of step 5."""

    def before(epoch: int, index: int) -> None:
        if world.rank == 1 and (epoch, index) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)

    return _error_of(rank_trainer(folder / "signalled", world, RankLoader(world, before)).run)


def validation(world: World, folder: Path) -> Any:
    """Seven pictures in batches of two: four batches for two ranks, the last with one picture."""
    loader, drawn = val_loader(folder, world), folder / f"validation-of-{world.size}"
    drawn.mkdir(exist_ok=True)
    torch.rand(3 + world.rank)  # the generators of the ranks stand where they like
    metrics = Validation(loader, torch.device("cpu"), "float32", drawn, world, losses=False)(tiny_detector().eval(), 1)
    return {"metrics": metrics, "seen": [meta["image_id"] for batch in loader.epoch(0) for meta in batch.metas]}


def val_loader(folder: Path, world: World) -> EpochLoader:
    root = folder / "shapes"
    index = load_coco(root / "annotations" / "instances_val2017.json", root / "val2017", limit=7)
    return EpochLoader(DetectionDataset(index, [64], 128), 2, shuffle=False, rank=world.rank, world_size=world.size)


def folders(world: World, folder: Path) -> Any:
    output = folder / "runs" / "net"
    if world.rank == 0:
        (folder / "runs" / "net").mkdir(parents=True)
        (folder / "runs" / "net" / "notes.txt").write_text("a user's")
    world.barrier()
    chosen = new_run_folder(output, world)
    return chosen.name, enter_run(chosen, world)


def talk(world: World, folder: Path) -> Any:
    value = {"name": f"rank {world.rank}", "boxes": torch.full((world.rank + 1, 4), float(world.rank))}
    turns = folder / "turns"

    def take_turn() -> int:
        with open(turns, "a") as file:
            file.write(f"{world.local_rank}\n")
        return world.local_rank

    return {
        "broadcast": world.broadcast(value, 1),
        "gather": world.gather(value),
        "bytes": world.broadcast_bytes(b"abc" if world.rank == 0 else b"").decode(),
        "no bytes": world.broadcast_bytes(b"").decode(),
        "total": world.total([0.5, world.rank]),
        "largest": world.largest(15 * world.rank),
        "all": [world.all(True), world.all(world.rank == 0)],
        "turn": world.in_turn(take_turn),
        "turns": turns.read_text(),
    }


def refusals(world: World, folder: Path) -> Any:
    """What may not travel, and what a processor has no kernels for."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4))
    code = _error_of(lambda: world.broadcast(Refused(folder / "executed")))
    return {"sync": _error_of(lambda: data_parallel(net, world)), "code": code}


class Refused:
    """Unpickled without care, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "executed")


CASES: dict[str, Callable[[World, Path], Any]] = {
    case.__name__: case
    for case in (
        frozen, group, accumulated, without_objects, unreached, thawed, training, not_finite, bad_picture, signalled,
        validation, folders, talk, refusals,
    )
}  # fmt: skip


def main(folder: Path, *names: str) -> None:
    torch.set_num_threads(1)
    world = world_from_environment()
    with joined(world, 30.0):
        for name in names:
            torch.save(CASES[name](world, folder), folder / f"{name}-{world.rank}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a dozen wrapped models are left, whose threads now and then abort Python's way out
