"""ShuffleNet V1 (Zhang et al., ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices,
2017, table 1, page 4), for 1, 2, 3, 4 or 8 groups.

Levels: channels 24, 240, 480, 960 at strides 4, 8, 16, 32 (3 groups): the max pool, stage2, stage3, stage4. Stages:
conv1 with the max pool; stage2; stage3; stage4. B pictures, H x W pixels. Table 1 at 224 px, channels by groups:

    layer    output   kernel  stride  units  g=1   g=2   g=3   g=4   g=8
    conv1    112x112  3       2              24    24    24    24    24
    maxpool  56x56    3       2
    stage2   28x28            2, 1    1 + 3  144   200   240   272   384
    stage3   14x14            2, 1    1 + 7  288   400   480   544   768
    stage4   7x7              2, 1    1 + 3  576   800   960   1088  1536
    mega multiply-adds                       143   140   137   133   137

The multiply-adds are met exactly when the linear layer of the classifier (0.6 to 1.5 M) is not counted.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding, check_padding, initialise
from detkit.norm import make_norm

# Groups to channels of stage2; stage3 and stage4 double them.
CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
STEM = 24
UNITS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1 (figure 2): b adds its input, c (stride 2) appends its average.

    The first 1x1 may have fewer groups than the others; the bottleneck has a quarter of the channels that come out
    (section 3.3).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, first_groups: int, norm: str) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        inner, bias = outputs // 4, norm == "none"
        added = outputs - inputs if stride == 2 else outputs
        self.conv1 = nn.Conv2d(inputs, inner, 1, groups=first_groups, bias=bias)
        self.bn1 = make_norm(norm, inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=bias)
        self.bn2 = make_norm(norm, inner)
        self.conv3 = nn.Conv2d(inner, added, 1, groups=groups, bias=bias)
        self.bn3 = make_norm(norm, added)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(torch.channel_shuffle(out, self.groups)))  # no ReLU here (section 3.2)
        out = self.bn3(self.conv3(out))
        return self.relu(out.add_(x) if self.stride == 1 else torch.cat((self.pool(x), out), dim=1))


class ShuffleNetV1(Backbone):
    """ShuffleNet V1 of 1, 2, 3, 4 or 8 groups.

    `width` scales the channels of every layer (the paper's 0.25x, 0.5x, ...), rounded up to what the groups divide.
    """

    def __init__(
        self,
        groups: int = 3,
        *,
        width: float = 1.0,
        norm: str = "batch",
        frozen_stages: int = 0,
        padding: Padding = "centred",
    ) -> None:
        super().__init__()
        check_padding(padding)  # the paper's is centred already
        if groups not in CHANNELS:
            raise ValueError(f"expected a ShuffleNet V1 of {', '.join(map(str, CHANNELS))} groups, got {groups}")
        if width <= 0:
            raise ValueError(f"expected a width above 0 for ShuffleNet V1, got {width}")
        # At 1.5 the authors' stem is not widened: table 5's 292 M multiply-adds need that.
        stem = _multiple(STEM if width == 1.5 else width * STEM, groups)
        first = _multiple(width * CHANNELS[groups], 4 * groups)
        self.channels = (stem, first, 2 * first, 4 * first)
        self.strides = (4, 8, 16, 32)
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, stem, 3, 2, padding=1, bias=norm == "none"), make_norm(norm, stem), nn.ReLU(inplace=True)
        )
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for number, units in enumerate(UNITS, start=2):
            inputs, outputs = self.channels[number - 2 : number]
            # the input of stage2 is so thin that its first 1x1 is not grouped (table 1, caption)
            layers = [ShuffleUnit(inputs, outputs, 2, groups, 1 if number == 2 else groups, norm)]
            layers += [ShuffleUnit(outputs, outputs, 1, groups, groups, norm) for _ in range(units - 1)]
            self.add_module(f"stage{number}", nn.Sequential(*layers))
        initialise(self, "fan_in")
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """conv1 with the max pool; stage2; stage3; stage4."""
        return [[self.conv1, self.maxpool], *([self.get_submodule(f"stage{number}")] for number in (2, 3, 4))]


class ShuffleNetV1Classifier(ShuffleNetV1):
    """ShuffleNet V1 with the average pool and the linear layer of the paper: pictures (B, 3, H, W) to logits."""

    def __init__(
        self, groups: int = 3, num_classes: int = 1000, *, padding: Padding = "reference", **options: Any
    ) -> None:
        super().__init__(groups, padding=padding, **options)
        self.fc = nn.Linear(self.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        return self.fc(super().forward(images)[-1].mean((2, 3)))


def _multiple(channels: float, divisor: int) -> int:
    """The next multiple of `divisor` that is not below `channels`."""
    return math.ceil(channels / divisor) * divisor
