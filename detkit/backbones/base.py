"""What the backbones share: running stage by stage, freezing, and padding that keeps cells where strides say.

Cells: a level has ceil(size / stride) cells, and cell i lies where stride * i says. Anchors and RoI pooling rely on
it. Convolutions and pools with odd kernels get there by padding half the kernel; 2x2 pools by `PairPool`. Nets that
were published with other paddings keep theirs under `padding="reference"`, with the same weights.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkit.backbones.recompute import recompute

Padding = Literal["centred", "reference"]

# One pixel less, and the coarsest level is a single cell, of which batch norm cannot take statistics.
MIN_SIDE = 33


@dataclass(frozen=True)
class SmallestPicture:
    """The least number of pixels a side that a net takes, for which reason if not the common one, and what to do."""

    side: int = MIN_SIDE
    reason: str = ""
    advice: str = "raise data.short_side"


SMALLEST = SmallestPicture()


class Backbone(nn.Module):
    """A net as a row of stages, each a row of layers; the last `len(channels)` stages each end in a level.

    A subclass sets `channels` and `strides` (finest level first), defines `stages`, and ends its constructor with
    `freeze`. Layers after the last level have no place in it.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    frozen_stages: int = 0
    checkpointing: bool = (
        False  # keep only the inputs of stages for the backward pass, and compute the rest again there
    )
    smallest: SmallestPicture = SMALLEST

    def stages(self) -> list[list[nn.Module]]:
        """The layers in the order in which they run, stage by stage."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> list[Tensor]:
        """Pictures (B, 3, H, W), normalised, to levels (B, channels[i], ceil(H / strides[i]), ceil(W / strides[i])).

        Raises ValueError for pictures below 33 px a side, or what `smallest` says.
        """
        check_size(images, self.smallest)
        stages = self.stages()
        first = len(stages) - len(self.channels)
        x, levels = images, []
        for number, stage in enumerate(stages):
            # a frozen stage keeps nothing anyway
            if self.checkpointing and number >= self.frozen_stages and torch.is_grad_enabled():
                row = nn.Sequential(*stage)
                x = recompute(row, row, x)
            else:
                for layer in stage:
                    x = layer(x)
            if number >= first:
                levels.append(x)
        return levels

    def freeze(self, stages: int) -> None:
        """Let the first `stages` stages train no more, and the others train. Raises ValueError when there are fewer."""
        if not 0 <= stages <= len(self.stages()):
            raise ValueError(
                f"model.backbone.frozen_stages={stages}, but {type(self).__name__} has {len(self.stages())} stages"
            )
        self.frozen_stages = stages
        for number, stage in enumerate(self.stages()):
            for layer in stage:
                layer.requires_grad_(number >= stages)

    def train(self, mode: bool = True) -> "Backbone":
        """Training mode, except for the frozen stages: their norm keeps its statistics."""
        super().train(mode)
        for layer in self._frozen():
            layer.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        return [layer for stage in self.stages()[: self.frozen_stages] for layer in stage]


class PairPool(nn.Module):
    """2x2 pooling of stride 2, `max` or `avg`, to ceil(size / 2) cells.

    A pair has no middle cell: `late` pairs (2i, 2i + 1) move every cell half a step to the right and down, `early` ones
    (2i - 1, 2i) to the left and up. In a row of pools they alternate, so that the errors do not add up.
    """

    def __init__(self, kind: Literal["max", "avg"], when: Literal["early", "late"]) -> None:
        super().__init__()
        self.kind, self.when = kind, when

    def forward(self, x: Tensor) -> Tensor:
        early = self.when == "early"
        if self.kind == "max":
            pooled = F.max_pool2d(x, 2, 2, padding=int(early), ceil_mode=not early)
        else:
            pooled = F.avg_pool2d(x, 2, 2, padding=int(early), ceil_mode=not early, count_include_pad=False)
        return pooled[..., : -(-x.shape[-2] // 2), : -(-x.shape[-1] // 2)]


def check_size(images: Tensor, smallest: SmallestPicture = SMALLEST) -> None:
    """Raises ValueError for pictures (B, 3, H, W) that are too small for a backbone."""
    if min(images.shape[-2:]) < smallest.side:
        raise ValueError(
            f"expected pictures of at least {smallest.side} x {smallest.side} px{smallest.reason}, "
            f"got {images.shape[-1]} x {images.shape[-2]}: {smallest.advice}"
        )


def ceil_max_pool(padding: Padding) -> nn.MaxPool2d:
    """3x3 of stride 2 that loses no cell at the border: published with an unpadded window that may hang over it."""
    if padding == "reference":
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)
    return nn.MaxPool2d(3, stride=2, padding=1)


def check_norm(norm: str, supported: tuple[str, ...], name: str) -> None:
    """Raises ValueError for a norm that the net `name` cannot have."""
    if norm not in supported:
        raise ValueError(f"model.backbone.norm={norm}: {name} can have {' or '.join(supported)} alone")


def check_padding(padding: str) -> None:
    """Raises ValueError for a name that is no padding."""
    if padding not in ("centred", "reference"):
        raise ValueError(f"expected padding centred or reference, got {padding!r}")


def initialise(model: nn.Module, fan: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """Kaiming normal (He et al., Delving Deep into Rectifiers) for convolutions, normal 0.01 for linear layers.

    With it the activations of nets without batch norm keep their size from layer to layer. Nets with grouped
    convolutions, or with ones that narrow much, need `fan_in`: torch's fan-out does not count groups.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=fan, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
