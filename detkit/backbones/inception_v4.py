"""Inception V4 (Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections, 2016, figure 9).

Names of parameters are timm's. Levels: channels 192, 384, 1024, 1536 at strides 4, 8, 16, 32, each the input of the
next reduction: the stem's second concatenation, Inception-A x 4, Inception-B x 7, Inception-C x 3 (timm taps stride 4
one block earlier, at 160 channels). Stages: the stem up to stride 2, then one for each level.
"""

from typing import Any

import torch
from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding
from detkit.backbones.inception_blocks import Layers, Parallel

# Where the stages of `features` end.
ENDS = (3, 5, 10, 18, 22)


class StemTwoWays(Parallel):
    """The second concatenation of the stem (figure 3): 3x3, or 1x7 and 7x1 before it; 160 to 192 channels."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(
            branch0=nn.Sequential(layers.conv(160, 64), layers.conv(64, 96, 3, valid=True)),
            branch1=nn.Sequential(
                layers.conv(160, 64),
                layers.conv(64, 64, (1, 7)),
                layers.conv(64, 64, (7, 1)),
                layers.conv(64, 96, 3, valid=True),
            ),
        )


class InceptionA(Parallel):
    """The block of the 35x35 grid (figure 4): 384 channels in and out."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(
            branch0=layers.conv(384, 96),
            branch1=layers.row(384, (64, 1), (96, 3)),
            branch2=layers.row(384, (64, 1), (96, 3), (96, 3)),
            branch3=layers.pool_row(384, 96),
        )


class ReductionA(Parallel):
    """35x35 to 17x17 (figure 7 with k, l, m, n = 192, 224, 256, 384 of table 1): 384 to 1,024 channels."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(
            branch0=layers.conv(384, 384, 3, stride=2),
            branch1=layers.row(384, (192, 1), (224, 3), reduce=256),
            branch2=layers.max_pool(),
        )


class InceptionB(Parallel):
    """The block of the 17x17 grid (figure 5): 7x7 as 1x7 and 7x1; 1,024 channels in and out."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(
            branch0=layers.conv(1024, 384),
            branch1=layers.row(1024, (192, 1), (224, (1, 7)), (256, (7, 1))),
            branch2=layers.row(1024, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
            branch3=layers.pool_row(1024, 128),
        )


class ReductionB(Parallel):
    """17x17 to 8x8 (figure 8): 1,024 to 1,536 channels."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(
            branch0=layers.row(1024, (192, 1), reduce=192),
            branch1=layers.row(1024, (256, 1), (256, (1, 7)), (320, (7, 1)), reduce=320),
            branch2=layers.max_pool(),
        )


class InceptionC(nn.Module):
    """The block of the 8x8 grid (figure 6): 1x3 and 3x1 side by side; 1,536 channels in and out."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.branch0 = layers.conv(1536, 256)
        self.branch1_0 = layers.conv(1536, 384)
        self.branch1_1a = layers.conv(384, 256, (1, 3))
        self.branch1_1b = layers.conv(384, 256, (3, 1))
        self.branch2_0 = layers.conv(1536, 384)
        self.branch2_1 = layers.conv(384, 448, (3, 1))
        self.branch2_2 = layers.conv(448, 512, (1, 3))
        self.branch2_3a = layers.conv(512, 256, (1, 3))
        self.branch2_3b = layers.conv(512, 256, (3, 1))
        self.branch3 = layers.pool_row(1536, 256)

    def forward(self, x: Tensor) -> Tensor:
        short = self.branch1_0(x)
        long = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        wide = [self.branch1_1a(short), self.branch1_1b(short), self.branch2_3a(long), self.branch2_3b(long)]
        return torch.cat([self.branch0(x), *wide, self.branch3(x)], 1)


class InceptionV4(Backbone):
    """Inception V4 as four feature levels."""

    def __init__(self, *, norm: str = "batch", frozen_stages: int = 0, padding: Padding = "centred") -> None:
        super().__init__()
        self.channels = (192, 384, 1024, 1536)
        self.strides = (4, 8, 16, 32)
        layers = Layers(norm, padding)
        self.smallest = layers.smallest
        self.features = nn.Sequential(
            layers.conv(3, 32, 3, stride=2),
            layers.conv(32, 32, 3, valid=True),
            layers.conv(32, 64, 3),
            Parallel(maxpool=layers.max_pool(), conv=layers.conv(64, 96, 3, stride=2)),
            StemTwoWays(layers),
            Parallel(conv=layers.conv(192, 192, 3, stride=2), maxpool=layers.max_pool()),
            *(InceptionA(layers) for _ in range(4)),
            ReductionA(layers),
            *(InceptionB(layers) for _ in range(7)),
            ReductionB(layers),
            *(InceptionC(layers) for _ in range(3)),
        )
        layers.initialise(self)
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """The stem up to stride 2; the rest of stride 4; a reduction and the blocks after it, three times."""
        blocks = list(self.features)
        return [blocks[start:end] for start, end in zip((0, *ENDS), ENDS, strict=False)]


class InceptionV4Classifier(InceptionV4):
    """With the average pool, dropout 0.2 and linear layer of figure 9: pictures (B, 3, 299, 299) to logits."""

    def __init__(self, num_classes: int = 1000, *, padding: Padding = "reference", **options: Any) -> None:
        super().__init__(padding=padding, **options)
        self.dropout = nn.Dropout(0.2)
        self.last_linear = nn.Linear(self.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        return self.last_linear(self.dropout(super().forward(images)[-1].mean((2, 3))))
