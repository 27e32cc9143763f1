"""MobileNet V1 (Howard et al., MobileNets, 2017, table 1), as feature levels for FPN.

Names of parameters are timm's (mobilenetv1_100; with width 1.25 mobilenetv1_125). Levels: channels 128, 256, 512, 1024
at strides 4, 8, 16, 32, times the width, each behind the last block of its stride. Stages: the stem with the first
block, then blocks.1 to blocks.4, each of which ends in a level. At 224 and width 1 the classifier has the paper's
569 M multiply-adds and 4.2 M parameters (tables 4 and 6).
"""

import math
from typing import Any

from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding, check_padding, initialise
from detkit.norm import make_norm

# Table 1: channels, number of blocks, stride of the first.
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


class SeparableBlock(nn.Module):
    """A 3x3 convolution of each channel by itself, then a 1x1, norm and ReLU behind both (figure 3, right).

    The paper says ReLU; the authors' code and all published weights have ReLU6.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv_dw = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=bias)
        self.bn1 = make_norm(norm, inputs)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=bias)
        self.bn2 = make_norm(norm, outputs)
        self.relu = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv_dw(x)))
        return self.relu(self.bn2(self.conv_pw(x)))


class MobileNetV1(Backbone):
    """Stages: the stem with the first block, then four stages, each of which ends in a level.

    `width` multiplies all channels (section 3.3, alpha), to the nearest multiple of 8.
    """

    def __init__(
        self,
        *,
        norm: str = "batch",
        frozen_stages: int = 0,
        padding: Padding = "centred",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_padding(padding)  # the published one is centred already
        inputs = scale_channels(32, width)
        self.conv_stem = nn.Conv2d(3, inputs, 3, stride=2, padding=1, bias=norm == "none")
        self.bn1 = make_norm(norm, inputs)
        self.relu = nn.ReLU6(inplace=True)
        self.blocks = nn.Sequential()
        for channels, blocks, stride in STAGES:
            outputs = scale_channels(channels, width)
            layers = [SeparableBlock(inputs, outputs, stride, norm)]
            layers += [SeparableBlock(outputs, outputs, 1, norm) for _ in range(blocks - 1)]
            self.blocks.append(nn.Sequential(*layers))
            inputs = outputs
        self.channels = tuple(scale_channels(channels, width) for channels, _, _ in STAGES[1:])
        self.strides = (4, 8, 16, 32)
        initialise(self, "fan_in")
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """The stem with blocks.0, then blocks.1 to blocks.4."""
        first, *others = self.blocks
        return [[self.conv_stem, self.bn1, self.relu, first], *([stage] for stage in others)]


class MobileNetV1Classifier(MobileNetV1):
    """MobileNet V1 with the paper's average pool and linear layer: pictures (B, 3, H, W) to logits (B, classes)."""

    def __init__(self, num_classes: int = 1000, *, padding: Padding = "reference", **options: Any) -> None:
        super().__init__(padding=padding, **options)
        self.classifier = nn.Linear(self.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        return self.classifier(super().forward(images)[-1].mean((2, 3)))


def scale_channels(channels: int, width: float) -> int:
    """channels * width to the nearest multiple of 8, at least 8, and no more than a tenth below.

    This is how the authors' code rounds; timm and torchvision do the same. Raises ValueError for a width that is not
    a positive number.
    """
    if not 0 < width < math.inf:
        raise ValueError(f"expected a width above 0, got {width}")
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded
