"""From the names and shapes of another library's detector to detkit's.

Box heads are renamed to `roi_head.box_head.conv.I.0` (convolution), `.conv.I.1` (norm) and `.linear.I` first, with
any I that grows; `number_layers` then counts as detkit does.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

State = dict[str, Tensor]
Rule = tuple[str, str]  # a pattern for the whole name, and the name that it becomes
HEAD = "roi_head.box_head"


@dataclass(frozen=True)
class Library:
    """How another library names its tensors, and which of its conventions differ from detkit's defaults.

    `model`, `data`: config keys below `model.` and `data.` that give the same detections. `background_first`: the
    background is label 0, not the last one. `bgr`: the first convolution reads blue, green, red.
    """

    detector: tuple[Rule, ...]
    backbone: tuple[Rule, ...]
    model: dict[str, object] = field(default_factory=dict)
    data: dict[str, object] = field(default_factory=dict)
    background_first: bool = False
    bgr: bool = False


def rename(names: Iterable[str], rules: Sequence[Rule]) -> tuple[dict[str, str], list[str]]:
    """Foreign names to detkit's by the first rule that fits each, and the names that none fits."""
    mapped: dict[str, str] = {}
    unused: list[str] = []
    for name in names:
        for pattern, target in rules:
            if match := re.fullmatch(pattern, name):
                mapped[name] = match.expand(target)
                break
        else:
            unused.append(name)
    return mapped, unused


def number_layers(mapped: Mapping[str, str]) -> dict[str, str]:
    """Box head layers by their place in detkit: convolution, norm where there is one, ReLU, and so on."""
    step = 3 if any(re.match(rf"{HEAD}\.conv\.\d+\.1\.", name) for name in mapped.values()) else 2
    order = {kind: _numbers(mapped.values(), kind) for kind in ("conv", "linear")}
    numbered = {}
    for foreign, name in mapped.items():
        if match := re.fullmatch(rf"{HEAD}\.conv\.(\d+)\.([01])\.(\w+)", name):
            place = step * order["conv"].index(int(match[1])) + int(match[2])
            name = f"{HEAD}.convs.{place}.{match[3]}"
        elif match := re.fullmatch(rf"{HEAD}\.linear\.(\d+)\.(\w+)", name):
            name = f"{HEAD}.linears.{order['linear'].index(int(match[1]))}.{match[2]}"
        numbered[foreign] = name
    return numbered


def _numbers(names: Iterable[str], kind: str) -> list[int]:
    found = (re.match(rf"{HEAD}\.{kind}\.(\d+)\.", name) for name in names)
    return sorted({int(match[1]) for match in found if match})


def channels_innermost(weight: Tensor, channels: int) -> Tensor:
    """The first linear layer (O, C * S * S), for RoIs flattened channel by channel, to detkit's order (S, S, C).

    Raises ValueError when the bins are no square of whole size.
    """
    bins = weight.shape[1] // channels
    size = round(bins**0.5)
    if channels * size * size != weight.shape[1]:
        raise ValueError(f"its box head reads {weight.shape[1]} numbers an RoI, no square of {channels} channels")
    return weight.view(-1, channels, size, size).permute(0, 2, 3, 1).flatten(1).contiguous()


def background_last(state: State) -> State:
    """A state dict whose class layers have the background first, in detkit's order: without its deltas, scores last."""
    moved = dict(state)
    for kind in ("weight", "bias"):
        scores, deltas = state[f"{HEAD}.scores.{kind}"], state[f"{HEAD}.deltas.{kind}"]
        moved[f"{HEAD}.scores.{kind}"] = torch.cat((scores[1:], scores[:1]))
        if len(deltas) == 4 * len(scores):
            moved[f"{HEAD}.deltas.{kind}"] = deltas[4:].clone()
    return moved


def structure(state: State) -> dict[str, object]:
    """The config keys below `model.` that the shapes of a detector's tensors tell, under detkit's names.

    Raises KeyError with the name of a tensor that is not there.
    """
    linears = _count(state, rf"{HEAD}\.linears\.\d+\.weight")
    convs = [state[name] for name in state if re.fullmatch(rf"{HEAD}\.convs\.\d+\.weight", name)]
    kernels = [weight for weight in convs if weight.ndim == 4]
    channels = len(kernels[-1]) if kernels else len(state["neck.output.0.0.weight"])
    first = state[f"{HEAD}.linears.0.weight"]
    return {
        "neck.out_channels": len(state["neck.output.0.0.weight"]),
        "neck.norm": "batch" if "neck.output.0.1.weight" in state else "none",
        "rpn.convs": _count(state, r"rpn\.head\.convs\.\d+\.weight"),
        "roi_head.pool_size": round((first.shape[1] / channels) ** 0.5),
        "roi_head.convs": len(kernels),
        "roi_head.conv_channels": channels,
        "roi_head.norm": "batch" if len(convs) > len(kernels) else "none",
        "roi_head.linears": linears,
        "roi_head.width": len(first),
        "roi_head.class_agnostic": len(state[f"{HEAD}.deltas.bias"]) == 4 < 4 * (len(state[f"{HEAD}.scores.bias"]) - 1),
    }


def _count(state: State, pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in state)
