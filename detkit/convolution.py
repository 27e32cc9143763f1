"""3x3 convolutions that are faster than PyTorch's on processors without AVX-512.

Two things are slow there. oneDNN computes a 3x3 convolution by its definition: where maps are large, tiles
(`winograd.py`) need a quarter of the multiplications. And it has no fast kernel for the weight gradient of maps in
channels-last memory, which takes three times as long as the convolution itself. Where maps are too small for tiles,
all cells of a batch, with a border of zeros around each map, are the rows of one matrix, and the same cells shifted by
a row or a column are the same matrix read from a later row on. So the gradient of each of the nine taps is one product
of two matrices that lie in memory already, at the speed of products.

B pictures, C channels in and D out, H x W cells, d dilation (and padding).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkit import winograd


class Least(NamedTuple):
    """The fewest channels, and numbers in the maps of a batch, for which tiles save more than they cost."""

    channels: int
    numbers: int


CONVOLVED = Least(256, 600_000)
LEARNED = Least(128, 300_000)  # for the gradient of the weights, which is slower otherwise


class FastConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 1 that keeps the size of its maps, computed in the fastest way known for that size.

    It shares the parameters of the convolution that it is made of, under the same names. `plain`: as
    `plain_convolutions` sets it.
    """

    plain = False

    def __init__(self, conv: nn.Conv2d) -> None:
        dilation = conv.dilation[0]
        with torch.device("meta"):
            super().__init__(conv.in_channels, conv.out_channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.weight, self.bias = conv.weight, conv.bias
        self.train(conv.training)

    def forward(self, input: Tensor) -> Tensor:
        if self.plain or input.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        if torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad):
            return _Convolution.apply(input, self.weight, self.bias, self.dilation[0])
        return _convolve(input, self.weight, self.bias, self.dilation[0])


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.dilation = dilation
        return _convolve(maps, weight, bias, dilation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (gradient,), (maps, weight), d = gradients, ctx.saved_tensors, ctx.dilation
        of_maps, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            _maps_gradient(gradient, maps, weight, d) if of_maps else None,
            weight_gradient(maps, gradient, d) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
        )


def _convolve(maps: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    if _worth_tiles(maps, weight.shape, CONVOLVED):
        return winograd.convolve(maps, weight, bias, dilation)
    return F.conv2d(maps, weight, bias, padding=dilation, dilation=dilation)


def _maps_gradient(gradient: Tensor, maps: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """The gradient (B, C, H, W) of what went in: a convolution, too, with each filter turned by 180 degrees."""
    if _worth_tiles(gradient, weight.shape, CONVOLVED):
        return winograd.convolve(gradient, weight.flip(2, 3).transpose(0, 1), None, dilation)
    geometry = [1, 1], [dilation, dilation], [dilation, dilation]  # stride, padding, dilation
    wanted = [True, False, False]
    result: Tensor
    result, _, _ = torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, *geometry, False, [0, 0], 1, wanted
    )
    return result


def weight_gradient(maps: Tensor, gradient: Tensor, dilation: int = 1) -> Tensor:
    """The gradient (D, C, 3, 3) of the weights, from what went in (B, C, H, W) and the gradient of what came out."""
    if _worth_tiles(maps, (gradient.shape[1], maps.shape[1]), LEARNED):
        return winograd.weight_gradient(maps, gradient, dilation)
    return _weight_gradient_by_taps(maps, gradient, dilation)


def _worth_tiles(maps: Tensor, channels: Sequence[int], least: Least) -> bool:
    """Whether maps (B, ., H, W) with so many channels out and in are computed sooner in tiles."""
    fewest = min(channels[:2])
    return fewest >= least.channels and maps.numel() // maps.shape[1] * fewest >= least.numbers


def _weight_gradient_by_taps(maps: Tensor, gradient: Tensor, dilation: int) -> Tensor:
    row = maps.shape[-1] + 2 * dilation  # cells of a padded row
    cells, learned = _padded_rows(maps, dilation), _padded_rows(gradient, dilation)
    centre = dilation * (row + 1)
    count = len(cells) - 2 * centre  # from the first to the last cell inside a border
    learned = learned[centre : centre + count].t()
    result = maps.new_empty((gradient.shape[1], 3, 3, maps.shape[1]))
    for i in range(3):
        for j in range(3):
            first = dilation * (i * row + j)
            result[:, i, j] = learned @ cells[first : first + count]
    return result.permute(0, 3, 1, 2)


def _padded_rows(maps: Tensor, border: int) -> Tensor:
    """(B, C, H, W) to ((B * (H + 2 border) * (W + 2 border)), C), zero in the border."""
    padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, border, border, border, border))
    return padded.reshape(-1, maps.shape[1])


def speed_up(model: nn.Module) -> None:
    """Replace the 3x3 convolutions of `model` that this makes faster; names and parameters stay."""
    made: dict[nn.Module, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if _fits(child):
                if child not in made:
                    made[child] = FastConv2d(child)  # type: ignore[arg-type]
                parent.add_module(name, made[child])


def has_fast_convolutions(model: nn.Module) -> bool:
    """Whether some of the model's convolutions are detkit's own."""
    return any(isinstance(module, FastConv2d) for module in model.modules())


@contextmanager
def plain_convolutions(model: nn.Module) -> Iterator[None]:
    """Within it the model convolves by PyTorch's own operators, so that what counts operations sees them."""
    fast = [module for module in model.modules() if isinstance(module, FastConv2d)]
    for module in fast:
        module.plain = True
    try:
        yield
    finally:
        for module in fast:
            module.plain = False


def _fits(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and (module.kernel_size, module.stride, module.groups) == ((3, 3), (1, 1), 1)
        and module.padding == module.dilation == (module.dilation[0],) * 2
        and module.padding_mode == "zeros"
        and module.in_channels >= 16  # a picture's three channels make thin matrices
    )


def lacks_fast_kernels() -> bool:
    """Whether this processor's convolutions are the slow ones: x86 with AVX2 alone."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx2")) and not capabilities.get("avx512_f")
