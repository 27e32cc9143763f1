"""A whole training step (forward, backward, SGD): detkit against torchvision, the same weights, pictures and boxes.

Nothing is frozen, 512 RoIs a picture. The other side is float32 always. With --peak the rate is also given as a share
of the machine's matrix product.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from measure import Count, Json, Quick, Row, Runs, Side, alternate, report
from torch import nn
from twins import detkit_twin, pictures_and_targets, torchvision_twin

from detkit.cli.errors import run_command
from detkit.engine.schedule import build_optimizer
from detkit.engine.step import Precision, Stepper
from detkit.profiling import flop_counter, matrix_peak
from detkit.types import Batch

NAMES = {
    "loss_objectness": "loss_objectness",
    "loss_rpn_box_reg": "loss_rpn_box",
    "loss_classifier": "loss_class",
    "loss_box_reg": "loss_box",
}
LR = 1e-6  # weights are drawn at random: larger steps would lead nowhere


def main(
    height: Side = 256, width: Side = 320, batch: Count = 4, precision: str = "float32", runs: Runs = 5,
    peak: bool = False, goal: float | None = None, quick: Quick = False, json: Json = None,
) -> None:  # fmt: skip
    """Time both on one batch and compare their losses."""
    if quick:
        height, width, batch, runs = 64, 96, 2, 1
    ours, theirs, model = build_sides(batch, (height, width), precision, quick)
    with first_drawn():
        apart = largest_difference(ours(), theirs()) if precision == "float32" else None
    seconds = alternate({"ours": ours, "theirs": theirs}, runs, warmup=0)
    if goal is None:
        goal = 1.6 if precision == "float32" else 3.0
    note = "" if apart is None else f"losses at most {apart:.1e} apart where both draw the same samples"
    if peak:
        note = f"{share_of_peak(model, ours, seconds['ours'])}; {note}"
    row = Row(
        f"training step {batch}x{height}x{width}, {precision}",
        f"{seconds['ours']:.2f} s",
        f"{seconds['theirs']:.2f} s",
        seconds["theirs"] / seconds["ours"],
        None if peak else goal,
        None if apart is None else apart < 1e-3,
        note,
    )
    report([row], json)


Losses = dict[str, float]


def build_sides(
    batch: int, size: tuple[int, int], precision: str, quick: bool
) -> tuple[Callable[[], Losses], Callable[[], Losses], nn.Module]:
    """A step of detkit, a step of torchvision, and detkit's model."""
    images, targets = pictures_and_targets(batch, size)
    their_model = torchvision_twin(size, quick).train()
    model, _, _ = detkit_twin(their_model)
    model.train()
    stepper = Stepper(model, build_optimizer(model, "sgd", LR, 1e-4), torch.device("cpu"), as_precision(precision))
    metas = [{"image_id": i, "file_name": "", "height": size[0], "width": size[1]} for i in range(batch)]
    whole = Batch(images, targets, metas)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(their_model.parameters(), lr=LR, momentum=0.9, weight_decay=1e-4)
    floats = [image.float() / 255 for image in images]
    labelled = [{"boxes": target["boxes"], "labels": target["labels"] + 1} for target in targets]

    def step_theirs() -> Losses:
        optimizer.zero_grad(set_to_none=True)
        losses = their_model(floats, labelled)
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()
        return {NAMES[name]: value.item() for name, value in losses.items()}

    return lambda: stepper.step([whole], 1).losses, step_theirs, model


def as_precision(name: str) -> Precision:
    """The name, checked."""
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"--precision: expected float32 or bfloat16, got {name!r}")
    return name  # type: ignore[return-value]


@contextmanager
def first_drawn() -> Iterator[None]:
    """Both sides draw samples by torch.randperm; with the identity in its place they take the same ones."""
    with mock.patch.object(torch, "randperm", torch.arange):
        yield


def largest_difference(ours: Losses, theirs: Losses) -> float:
    """Of the four losses, relative to their sum."""
    total = sum(theirs.values())
    return max(abs(ours[name] - value) / total for name, value in theirs.items())


def share_of_peak(model: nn.Module, step: Callable[[], Losses], seconds: float) -> str:
    """The rate of convolutions and matrix products of a step, and what it is of that of a plain matrix product."""
    with flop_counter(model) as counter:
        step()
    rate = counter.get_total_flops() / seconds / 1e9
    peak = matrix_peak(torch.device("cpu"), torch.float32)
    return f"{counter.get_total_flops() / 1e9:.0f} GFLOP, {rate:.0f} GFLOP/s, {100 * rate / peak:.0f} % of {peak:.0f}"


if __name__ == "__main__":
    run_command(main)
