"""3x3 convolutions of the detector's sizes, forward and the two gradients: detkit's own ways against PyTorch's."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import Json, Quick, Row, Runs, alternate, report
from torch import Tensor

from detkit.cli.errors import run_command
from detkit.convolution import weight_gradient
from detkit.winograd import convolve

# (B, C, H, W): what the neck and the RPN see of a picture of 800x1088 at strides 4 to 16, and of two at stride 16; then
# what they see of four pictures of 256x320 at stride 4.
SIZES = ((1, 256, 200, 272), (1, 256, 100, 136), (1, 256, 50, 68), (2, 256, 50, 68), (4, 256, 64, 80))
TINY = ((2, 5, 7, 9),)


def main(runs: Runs = 7, quick: Quick = False, json: Json = None) -> None:
    """Time every size in all three directions; the two sides take turns."""
    rows = [row for size in (TINY if quick else SIZES) for row in compare(size, 1 if quick else runs)]
    report(rows, json)


@torch.no_grad()
def compare(size: tuple[int, ...], runs: int) -> list[Row]:
    """A row a direction: the convolution in tiles, the gradients as detkit computes them for the size."""
    torch.manual_seed(0)
    maps, gradient = (torch.randn(size).contiguous(memory_format=torch.channels_last) for _ in range(2))
    weight = (0.05 * torch.randn(size[1], size[1], 3, 3)).contiguous(memory_format=torch.channels_last)
    turned = weight.flip(2, 3).transpose(0, 1)
    ways: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "convolution": (lambda: convolve(maps, weight, None), lambda: F.conv2d(maps, weight, padding=1)),
        "gradient of maps": (lambda: convolve(gradient, turned, None), lambda: backward(gradient, maps, weight, 0)),
        "gradient of weights": (lambda: weight_gradient(maps, gradient), lambda: backward(gradient, maps, weight, 1)),
    }
    rows = []
    for name, (ours, theirs) in ways.items():
        seconds = alternate({"ours": ours, "theirs": theirs}, runs)
        expected = theirs()
        apart = float((ours() - expected).norm() / expected.norm())
        work = f"{name}, {size[0]} x {size[1]} channels x {size[2]}x{size[3]}"
        our_time, their_time = (f"{1000 * seconds[side]:.1f} ms" for side in ("ours", "theirs"))
        ratio, note = seconds["theirs"] / seconds["ours"], f"{apart:.1e} of their norm apart"
        rows.append(Row(work, our_time, their_time, ratio, None, apart < 1e-5, note))
    return rows


def backward(gradient: Tensor, maps: Tensor, weight: Tensor, wanted: int) -> Tensor:
    """PyTorch's gradient of the maps (0) or of the weights (1)."""
    mask = [wanted == 0, wanted == 1, False]
    geometry = [1, 1], [1, 1], [1, 1]  # stride, padding, dilation
    results = torch.ops.aten.convolution_backward(gradient, maps, weight, None, *geometry, False, [0, 0], 1, mask)
    result: Tensor = results[wanted]
    return result


if __name__ == "__main__":
    run_command(main)
