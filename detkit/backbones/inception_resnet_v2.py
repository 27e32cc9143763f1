"""Inception-ResNet V2 (Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections, 2016).

Built as its authors published it with weights, and as timm has it, whose names of parameters it takes. That net differs
from figure 15 of the paper: the stem is Inception V3's, one Inception block (`mixed_5b`) leads to the 35x35 grid, the
residual blocks are 10, 20 and 10 in place of 5, 10 and 5, and the grids have 320, 1088 and 2080 channels in place of
384, 1152 (1154 in figure 17) and 2144 (2048 in figure 19).

Levels: channels 192, 320, 1088, 1536 at strides 4, 8, 16, 32: the stem, each row of residual blocks, the last
convolution. Stages: the stem up to stride 2, then one for each level.
"""

from typing import Any

import torch
from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding
from detkit.backbones.inception_blocks import Layers, Parallel

# Residual scaling of the three rows of blocks (section 3.3: between 0.1 and 0.3), as in the published net.
SCALES = (0.17, 0.10, 0.20)


class Residual(nn.Module):
    """x + scale * 1x1(branches of x), then ReLU (figure 20).

    The 1x1 has no activation (section 3.2) and, as in the published net, no norm but a bias.
    """

    def __init__(self, channels: int, joined: int, scale: float, relu: bool = True, **branches: nn.Module) -> None:
        super().__init__()
        self.scale = scale
        self.branches = tuple(branches)
        for name, branch in branches.items():
            self.add_module(name, branch)
        self.conv2d = nn.Conv2d(joined, channels, 1)
        self.act = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.get_submodule(name)(x) for name in self.branches], 1)
        return self.act(torch.add(x, self.conv2d(joined), alpha=self.scale))


class Block35(Residual):
    """Inception-ResNet-A, of the 35x35 grid (figure 16)."""

    def __init__(self, layers: Layers, scale: float) -> None:
        super().__init__(
            320,
            128,
            scale,
            branch0=layers.conv(320, 32),
            branch1=layers.row(320, (32, 1), (32, 3)),
            branch2=layers.row(320, (32, 1), (48, 3), (64, 3)),
        )


class Block17(Residual):
    """Inception-ResNet-B, of the 17x17 grid (figure 17): 7x7 as 1x7 and 7x1."""

    def __init__(self, layers: Layers, scale: float) -> None:
        super().__init__(
            1088,
            384,
            scale,
            branch0=layers.conv(1088, 192),
            branch1=layers.row(1088, (128, 1), (160, (1, 7)), (192, (7, 1))),
        )


class Block8(Residual):
    """Inception-ResNet-C, of the 8x8 grid (figure 19): 3x3 as 1x3 and 3x1."""

    def __init__(self, layers: Layers, scale: float, relu: bool = True) -> None:
        super().__init__(
            2080,
            448,
            scale,
            relu,
            branch0=layers.conv(2080, 192),
            branch1=layers.row(2080, (192, 1), (224, (1, 3)), (256, (3, 1))),
        )


class Mixed5b(Parallel):
    """The Inception block that leads from the stem to the 35x35 grid: 192 to 320 channels."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(
            branch0=layers.conv(192, 96),
            branch1=layers.row(192, (48, 1), (64, 5)),
            branch2=layers.row(192, (64, 1), (96, 3), (96, 3)),
            branch3=layers.pool_row(192, 64),
        )


class ReductionA(Parallel):
    """35x35 to 17x17 (figure 7 with k, l, m, n = 256, 256, 384, 384 of table 1): 320 to 1,088 channels."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(
            branch0=layers.conv(320, 384, 3, stride=2),
            branch1=layers.row(320, (256, 1), (256, 3), reduce=384),
            branch2=layers.max_pool(),
        )


class ReductionB(Parallel):
    """17x17 to 8x8 (figure 18): 1,088 to 2,080 channels."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(
            branch0=layers.row(1088, (256, 1), reduce=384),
            branch1=layers.row(1088, (256, 1), reduce=288),
            branch2=layers.row(1088, (256, 1), (288, 3), reduce=320),
            branch3=layers.max_pool(),
        )


class InceptionResNetV2(Backbone):
    """Inception-ResNet V2 as four feature levels.

    `scales`: by how much the residuals of the 35x35, 17x17 and 8x8 grids are scaled down before they are added; 1.0
    leaves them as they are. The very last block always has scale 1 and no ReLU, as published.
    """

    def __init__(
        self,
        *,
        norm: str = "batch",
        frozen_stages: int = 0,
        padding: Padding = "centred",
        scales: tuple[float, float, float] = SCALES,
    ) -> None:
        super().__init__()
        self.channels = (192, 320, 1088, 1536)
        self.strides = (4, 8, 16, 32)
        layers = Layers(norm, padding)
        self.smallest = layers.smallest
        self.conv2d_1a = layers.conv(3, 32, 3, stride=2)
        self.conv2d_2a = layers.conv(32, 32, 3, valid=True)
        self.conv2d_2b = layers.conv(32, 64, 3)
        self.maxpool_3a = layers.max_pool()
        self.conv2d_3b = layers.conv(64, 80)
        self.conv2d_4a = layers.conv(80, 192, 3, valid=True)
        self.maxpool_5a = layers.max_pool()
        self.mixed_5b = Mixed5b(layers)
        self.repeat = nn.Sequential(*(Block35(layers, scales[0]) for _ in range(10)))
        self.mixed_6a = ReductionA(layers)
        self.repeat_1 = nn.Sequential(*(Block17(layers, scales[1]) for _ in range(20)))
        self.mixed_7a = ReductionB(layers)
        self.repeat_2 = nn.Sequential(*(Block8(layers, scales[2]) for _ in range(9)))
        self.block8 = Block8(layers, 1.0, relu=False)
        self.conv2d_7b = layers.conv(2080, 1536)
        layers.initialise(self)
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """The stem up to stride 2; the rest of stride 4; then what leads to each grid and its residual blocks."""
        return [
            [self.conv2d_1a, self.conv2d_2a, self.conv2d_2b],
            [self.maxpool_3a, self.conv2d_3b, self.conv2d_4a],
            [self.maxpool_5a, self.mixed_5b, self.repeat],
            [self.mixed_6a, self.repeat_1],
            [self.mixed_7a, self.repeat_2, self.block8, self.conv2d_7b],
        ]


class InceptionResNetV2Classifier(InceptionResNetV2):
    """With the average pool, dropout 0.2 and linear layer of figure 15: pictures (B, 3, 299, 299) to logits."""

    def __init__(self, num_classes: int = 1000, *, padding: Padding = "reference", **options: Any) -> None:
        super().__init__(padding=padding, **options)
        self.dropout = nn.Dropout(0.2)
        self.classif = nn.Linear(self.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        return self.classif(self.dropout(super().forward(images)[-1].mean((2, 3))))
