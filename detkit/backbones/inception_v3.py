"""Inception V3 (Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016).

Table 1 with batch norm also in the auxiliary classifier (BN-auxiliary, section 8), as its authors published it, which
differs from the table in the widths of some layers. Names of parameters are torchvision's. Levels: channels 192, 288,
768, 2048 at strides 4, 8, 16, 32: Conv2d_4a_3x3, Mixed_5d, Mixed_6e, Mixed_7c. Stages: the stem up to stride 2, then
one for each level. Its input is 299 px.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding
from detkit.backbones.inception_blocks import Kernel, Layers

Step = tuple[int, Kernel] | tuple[int, Kernel, int]  # outputs, kernel, stride
STAGES = (
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3",
    "maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3",
    "maxpool2 Mixed_5b Mixed_5c Mixed_5d",
    "Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e",
    "Mixed_7a Mixed_7b Mixed_7c",
)


class Branches(nn.Module):
    """Rows of convolutions side by side, named NAME_1, NAME_2, ..., or NAME where a row has one; then a pooled row.

    `pooled`: channels of the 1x1 convolution after a 3x3 mean; None: 3x3 maximum of stride 2 and no convolution.
    """

    def __init__(self, layers: Layers, inputs: int, rows: Mapping[str, Sequence[Step]], pooled: int | None) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        for name, steps in rows.items():
            row, channels = [], inputs
            for number, step in enumerate(steps, start=1):
                outputs, kernel, stride = step if len(step) == 3 else (*step, 1)
                row.append(name if len(steps) == 1 else f"{name}_{number}")
                self.add_module(row[-1], layers.conv(channels, outputs, kernel, stride))
                channels = outputs
            self.rows.append(row)
        self.pool = layers.max_pool() if pooled is None else nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = nn.Identity() if pooled is None else layers.conv(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to all rows joined along the channels."""
        outputs = []
        for row in self.rows:
            out = x
            for name in row:
                out = self.get_submodule(name)(out)
            outputs.append(out)
        return torch.cat([*outputs, self.branch_pool(self.pool(x))], 1)


def _block_35(layers: Layers, inputs: int, pooled: int) -> Branches:
    """Figure 5: 5x5 kept, and two 3x3 in a row."""
    rows: dict[str, list[Step]] = {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
    }
    return Branches(layers, inputs, rows, pooled)


def _reduction_17(layers: Layers) -> Branches:
    """Figure 10, 35x35 to 17x17: 288 to 768 channels."""
    rows: dict[str, list[Step]] = {"branch3x3": [(384, 3, 2)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3, 2)]}
    return Branches(layers, 288, rows, None)


def _block_17(layers: Layers, width: int) -> Branches:
    """Figure 6 with n = 7: 1x7 and 7x1 in turn."""
    rows: dict[str, list[Step]] = {
        "branch1x1": [(192, 1)],
        "branch7x7": [(width, 1), (width, (1, 7)), (192, (7, 1))],
        "branch7x7dbl": [(width, 1), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7))],
    }
    return Branches(layers, 768, rows, 192)


def _reduction_8(layers: Layers) -> Branches:
    """17x17 to 8x8: 768 to 1,280 channels."""
    rows: dict[str, list[Step]] = {
        "branch3x3": [(192, 1), (320, 3, 2)],
        "branch7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)],
    }
    return Branches(layers, 768, rows, None)


class WideBlock(nn.Module):
    """Figure 7, the block of the 8x8 grid, with 1x3 and 3x1 side by side: 2,048 channels out."""

    def __init__(self, layers: Layers, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = layers.conv(inputs, 320)
        self.branch3x3_1 = layers.conv(inputs, 384)
        self.branch3x3_2a = layers.conv(384, 384, (1, 3))
        self.branch3x3_2b = layers.conv(384, 384, (3, 1))
        self.branch3x3dbl_1 = layers.conv(inputs, 448)
        self.branch3x3dbl_2 = layers.conv(448, 384, 3)
        self.branch3x3dbl_3a = layers.conv(384, 384, (1, 3))
        self.branch3x3dbl_3b = layers.conv(384, 384, (3, 1))
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = layers.conv(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2048, H, W)."""
        short = self.branch3x3_1(x)
        long = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        wide = [self.branch3x3_2a(short), self.branch3x3_2b(short)]
        wide += [self.branch3x3dbl_3a(long), self.branch3x3dbl_3b(long)]
        return torch.cat([self.branch1x1(x), *wide, self.branch_pool(self.pool(x))], 1)


class AuxiliaryHead(nn.Module):
    """The auxiliary classifier on the last 17x17 grid (figure 8): pool, 1x1, 5x5, linear."""

    def __init__(self, layers: Layers, num_classes: int) -> None:
        super().__init__()
        self.conv0 = layers.conv(768, 128)
        self.conv1 = layers.conv(128, 768, 5, valid=True)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 768, H, W) to logits (B, classes)."""
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, stride=3)))
        return self.fc(x.mean((2, 3)))


class InceptionV3(Backbone):
    """Inception V3 as four feature levels."""

    def __init__(self, *, norm: str = "batch", frozen_stages: int = 0, padding: Padding = "centred") -> None:
        super().__init__()
        self.channels = (192, 288, 768, 2048)
        self.strides = (4, 8, 16, 32)
        self.layers = layers = Layers(norm, padding)
        self.smallest = layers.smallest
        self.Conv2d_1a_3x3 = layers.conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = layers.conv(32, 32, 3, valid=True)
        self.Conv2d_2b_3x3 = layers.conv(32, 64, 3)
        self.maxpool1 = layers.max_pool()
        self.Conv2d_3b_1x1 = layers.conv(64, 80)
        self.Conv2d_4a_3x3 = layers.conv(80, 192, 3, valid=True)
        self.maxpool2 = layers.max_pool()
        for name, inputs, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
            self.add_module(f"Mixed_{name}", _block_35(layers, inputs, pooled))
        self.Mixed_6a = _reduction_17(layers)
        for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            self.add_module(f"Mixed_{name}", _block_17(layers, width))
        self.Mixed_7a = _reduction_8(layers)
        self.Mixed_7b = WideBlock(layers, 1280)
        self.Mixed_7c = WideBlock(layers, 2048)
        layers.initialise(self)
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """The stem up to stride 2, then the layers of strides 4, 8, 16 and 32."""
        return [[self.get_submodule(name) for name in row.split()] for row in STAGES]


class InceptionV3Classifier(InceptionV3):
    """With average pool, dropout and linear layer, and with the auxiliary classifier unless `aux` is False.

    Pictures (B, 3, 299, 299) to logits (B, classes); in training mode a tuple of the logits and the auxiliary ones,
    whose loss counts `auxiliary_weight`: the authors' code has 0.4, the paper does not say.
    """

    auxiliary_weight = 0.4

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        padding: Padding = "reference",
        norm: str = "batch",
        aux: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(padding=padding, norm=norm, **options)
        self.AuxLogits = AuxiliaryHead(self.layers, num_classes) if aux else None
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        """Logits, with the auxiliary ones in training mode."""
        _, _, last_17, last_8 = super().forward(images)
        logits = self.fc(self.dropout(last_8.mean((2, 3))))
        if self.training and self.AuxLogits is not None:
            return logits, self.AuxLogits(last_17)
        return logits
