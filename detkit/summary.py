"""What a backbone costs and what it sees: parameters, multiply-adds, levels with receptive fields, latency.

Parameters, multiply-adds and receptive fields are computed on the `meta` device, which has shapes but no numbers:
it takes neither memory nor time. A receptive field is read from the autograd graph, so it holds for any net.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detkit.backbones import CLASSIFIERS
from detkit.build import build_backbone, build_classifier
from detkit.norm import fold_norm
from detkit.pretrained import source_of

PAPER_INPUT = 224
# Papers whose classifier has another input.
OTHER_INPUTS = {"inception_v2": 299, "inception_v3": 299, "inception_v4": 299, "inception_resnet_v2": 299}
DETECTOR_INPUT = (800, 1088)  # height, width: COCO's usual short side and the mean long one, in multiples of 32
# Nodes whose every output depends on all of the picture; the names of attention's kernels start so.
GLOBAL_NODES = ("MeanBackward", "AdaptiveAvgPool2DBackward", "AdaptiveMaxPool2DBackward", "Bmm", "ScaledDotProduct")

Pair = tuple[float, float]


@dataclass(frozen=True)
class Level:
    """A feature level. `receptive_field`: side in pixels of what a cell depends on; None: the whole picture."""

    stride: int
    channels: int
    receptive_field: int | None


@dataclass(frozen=True)
class Latency:
    """The median time of a forward pass of one picture of side x side pixels, float32, batch norm folded."""

    milliseconds: float
    side: int
    runs: int
    threads: int


@dataclass(frozen=True)
class Summary:
    """A row of the table. Multiply-adds are of convolutions and matrix products, for one picture.

    The classifier's are at `classifier_input` x `classifier_input` pixels, its paper's; its parameters include
    auxiliary heads. All three are None for a net that has none here.
    """

    name: str
    parameters: int
    multiply_adds_224: int
    multiply_adds_800x1088: int
    classifier_parameters: int | None
    classifier_input: int | None
    classifier_multiply_adds: int | None
    levels: tuple[Level, ...]
    weights: str
    latency: Latency | None = None


@dataclass(frozen=True)
class Field:
    """Size of a receptive field and distance of neighbouring ones, in pixels (height, width)."""

    size: Pair
    stride: Pair


def summarise(name: str) -> Summary:
    """All numbers of a backbone but its latency. Raises ValueError for an unknown name."""
    with torch.device("meta"):
        backbone = build_backbone(name)
        classifier = build_classifier(name) if name in CLASSIFIERS else None
    side = OTHER_INPUTS.get(name, PAPER_INPUT) if classifier is not None else None
    return Summary(
        name,
        count_parameters(backbone),
        count_multiply_adds(backbone, (PAPER_INPUT, PAPER_INPUT)),
        count_multiply_adds(backbone, DETECTOR_INPUT),
        None if classifier is None else count_parameters(classifier),
        side,
        None if classifier is None or side is None else count_multiply_adds(classifier, (side, side)),
        tuple(describe_levels(backbone)),
        weights_source(name),
    )


def weights_source(name: str) -> str:
    """Where ImageNet weights of a backbone come from: what `model.backbone.weights` can be."""
    published = "imagenet (timm)" if name.startswith("timm/") else source_of(name)
    return published or "none: pretrain with detkit train-cls"


def count_parameters(model: nn.Module) -> int:
    """Numbers that training may change; statistics of batch norm are not among them."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_multiply_adds(model: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-adds for a picture of (height, width), in eval mode."""
    counter = FlopCounterMode(display=False)
    with counter:
        model.eval()(_picture(model, size))
    return counter.get_total_flops() // 2  # it counts a multiplication and an addition as two


def describe_levels(backbone: nn.Module) -> list[Level]:
    """The levels as declared, with the receptive fields that the graph has."""
    channels: Sequence[int] = backbone.channels  # type: ignore[assignment]
    strides: Sequence[int] = backbone.strides  # type: ignore[assignment]
    sides = [max(field.size) for field in receptive_fields(backbone)]
    return [
        Level(stride, count, None if side == float("inf") else int(side))
        for stride, count, side in zip(strides, channels, sides, strict=True)
    ]


def receptive_fields(backbone: nn.Module) -> list[Field]:
    """The theoretical receptive field of each level, from the graph between the level and the picture.

    A window of k cells, d apart, on cells that lie s pixels apart adds (k - 1) d s to the field (Araujo et al.,
    Computing Receptive Fields of Convolutional Neural Networks, Distill 2019); branches that meet count by the largest.
    """
    images = _picture(backbone, (PAPER_INPUT, PAPER_INPUT)).requires_grad_()
    fields: dict[Any, Field | None] = {}
    result = []
    for level in backbone.eval()(images):
        _walk(level.grad_fn, images, fields)
        field = fields[level.grad_fn]
        assert field is not None, "a level does not depend on the picture"
        result.append(field)
    return result


def _walk(node: Any, images: Tensor, fields: dict[Any, Field | None]) -> None:
    """Enter the field of a node, and first those of all before it; None where no picture comes in."""
    stack = [node]
    while stack:
        node = stack[-1]
        before = [parent for parent, _ in node.next_functions if parent is not None]
        waiting = [parent for parent in before if parent not in fields]
        if waiting:
            stack += waiting
            continue
        stack.pop()
        if hasattr(node, "variable"):
            fields[node] = Field((1, 1), (1, 1)) if node.variable is images else None
        else:
            fields[node] = _through(node, [field for parent in before if (field := fields[parent]) is not None])


def _through(node: Any, inputs: list[Field]) -> Field | None:
    if not inputs:
        return None
    size = _largest([field.size for field in inputs])
    stride = _largest([field.stride for field in inputs])
    if node.name().startswith(GLOBAL_NODES):
        return Field((float("inf"), float("inf")), stride)
    extent, step = _window(node)
    grown = (size[0] + extent[0] * stride[0], size[1] + extent[1] * stride[1])
    return Field(grown, (stride[0] * step[0], stride[1] * step[1]))


def _window(node: Any) -> tuple[Pair, Pair]:
    """How many cells beyond the first one a node's window spans, and its stride."""
    name = node.name()
    if name.startswith("ConvolutionBackward"):
        kernel, step, dilation = node._saved_weight.shape[2:], node._saved_stride, node._saved_dilation
    elif name.startswith("MaxPool2DWithIndicesBackward"):
        kernel, step, dilation = node._saved_kernel_size, node._saved_stride, node._saved_dilation
    elif name.startswith("AvgPool2DBackward"):
        kernel, step, dilation = node._saved_kernel_size, node._saved_stride, (1, 1)
    else:
        return (0, 0), (1, 1)
    (height, width), step = _pair(kernel), _pair(step or kernel)
    return ((height - 1) * dilation[0], (width - 1) * dilation[-1]), step


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[-1]


def _largest(pairs: list[Pair]) -> Pair:
    return max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)


def _picture(model: nn.Module, size: tuple[int, int]) -> Tensor:
    return torch.zeros(1, 3, *size, device=next(model.parameters()).device)


@torch.no_grad()
def measure_latency(name: str, side: int, runs: int, done: Callable[[], None]) -> Latency:
    """Time a backbone on the CPU as a detector runs it: channels last, batch norm folded; `done` after each pass."""
    model = fold_norm(build_backbone(name)).to(memory_format=torch.channels_last)
    picture = _picture(model, (side, side)).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        model(picture)
        seconds.append(time.perf_counter() - started)
        done()
    return Latency(statistics.median(seconds[1:]) * 1000, side, runs, torch.get_num_threads())
