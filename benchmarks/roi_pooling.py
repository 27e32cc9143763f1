"""RoI pooling alone, forward and backward: detkit's weighted bags against torchvision's operator on a CPU.

Four maps of one size, 256 channels, as many RoIs on each.
"""

import torch
from measure import Count, Json, Quick, Row, Runs, alternate, report
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from detkit.cli.errors import run_command
from detkit.models.roi_pool import pool_levels

GOALS = {"forward": 8.0, "backward": 20.0}
SCALE, SIZE, RATIO = 0.25, 7, 2


def main(
    rois: Count = 2048, channels: Count = 256, height: Count = 64, width: Count = 80, runs: Runs = 7,
    quick: Quick = False, json: Json = None,
) -> None:  # fmt: skip
    """Time both directions of both."""
    if quick:
        rois, channels, height, width, runs = 32, 8, 12, 16, 1
    torch.manual_seed(0)
    boxes, levels = draw_rois(rois, height, width)
    maps = [torch.randn(1, channels, height, width) for _ in range(4)]
    ours_in = [m.contiguous(memory_format=torch.channels_last).requires_grad_() for m in maps]
    theirs_in = [m.clone().requires_grad_() for m in maps]

    def ours() -> Tensor:
        return pool_levels(ours_in, boxes, levels, [SCALE] * 4, SIZE, RATIO, True)

    def theirs() -> Tensor:
        parts = [
            torchvision_roi_align(m, boxes[levels == level], SIZE, SCALE, RATIO, True)
            for level, m in enumerate(theirs_in)
        ]
        return torch.cat(parts)

    forward = alternate({"ours": ours, "theirs": theirs}, runs)
    bins, expected = ours(), theirs()
    pull = torch.randn_like(expected)
    # each side gets the gradient in the memory layout that its box head gives it
    our_pull = pull.contiguous(memory_format=torch.channels_last)

    def back_ours() -> tuple[Tensor, ...]:
        return torch.autograd.grad(bins, ours_in, our_pull, retain_graph=True)

    def back_theirs() -> tuple[Tensor, ...]:
        return torch.autograd.grad(expected, theirs_in, pull, retain_graph=True)

    back = {"ours": back_ours, "theirs": back_theirs}
    backward = alternate(back, runs)
    apart = {
        "forward": float((bins - expected).detach().abs().max()),
        "backward": max(float((a - b).abs().max()) for a, b in zip(*(side() for side in back.values()), strict=True)),
    }
    rows = [
        Row(
            f"RoI pooling {name}, {rois} RoIs",
            f"{1000 * seconds['ours']:.1f} ms",
            f"{1000 * seconds['theirs']:.1f} ms",
            seconds["theirs"] / seconds["ours"],
            GOALS[name],
            apart[name] < 1e-3,
            f"at most {apart[name]:.1e} apart",
        )
        for name, seconds in (("forward", forward), ("backward", backward))
    ]
    report(rows, json)


def draw_rois(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """RoIs (N, 5) of all sizes within a map, level after level, and their levels (N,)."""
    corner = torch.rand(count, 2) * 0.7
    extent = 0.05 + torch.rand(count, 2) * 0.25
    boxes = torch.cat((corner, corner + extent), dim=1) * torch.tensor([width, height] * 2) / SCALE
    return torch.cat((torch.zeros(count, 1), boxes), dim=1), torch.arange(count) * 4 // count


if __name__ == "__main__":
    run_command(main)
