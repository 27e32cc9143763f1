"""MobileNet V2 (Sandler et al., Inverted Residuals and Linear Bottlenecks, 2018, table 2), as feature levels for FPN.

Names of parameters are torchvision's. Levels: channels 24, 32, 96, 1280 at strides 4, 8, 16, 32, times the width. The
first three are the linear bottlenecks behind the last block of their stride; at stride 32 it is not the last block
(320 channels) but the 1x1 convolution with norm and ReLU6 behind it, the last layer of that stride. Stages: the stem
with the first block, then the layers of each stride, which end in a level. At 224 and width 1 the classifier has the
paper's 300 M multiply-adds (table 4), and 3.47 M weights, which the paper calls 3.4 M.
"""

from typing import Any

from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding, check_padding, initialise
from detkit.backbones.mobilenet_v1 import scale_channels
from detkit.norm import make_norm

# Table 2: expansion, channels, number of blocks, stride of the first.
ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# Where the stages end in `features`: 0 is the stem, 1 to 17 the blocks, 18 the last convolution.
ENDS = (2, 4, 7, 14, 19)


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, 3x3 depthwise, linear 1x1 (figure 4d, table 1).

    With a shortcut between the narrow ends where the shape stays; without the first 1x1 where the expansion is 1.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, norm: str) -> None:
        super().__init__()
        wide = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        layers = [] if expansion == 1 else [_conv(inputs, wide, 1, 1, norm)]
        self.conv = nn.Sequential(
            *layers,
            _conv(wide, wide, 3, stride, norm, groups=wide),
            nn.Conv2d(wide, outputs, 1, bias=norm == "none"),
            make_norm(norm, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


def _conv(inputs: int, outputs: int, kernel: int, stride: int, norm: str, groups: int = 1) -> nn.Sequential:
    """Convolution, norm, ReLU6."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=norm == "none")
    return nn.Sequential(conv, make_norm(norm, outputs), nn.ReLU6(inplace=True))


class MobileNetV2(Backbone):
    """Stages: the stem with the first block, then four stages, each of which ends in a level.

    `width` multiplies all channels, to the nearest multiple of 8; below 1 it spares the last 1x1 convolution
    (section 4).
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
        self.features = nn.Sequential(_conv(3, inputs, 3, 2, norm))
        for expansion, channels, blocks, stride in ROWS:
            outputs = scale_channels(channels, width)
            for number in range(blocks):
                block = InvertedResidual(inputs, outputs, stride if number == 0 else 1, expansion, norm)
                self.features.append(block)
                inputs = outputs
        last = scale_channels(1280, max(1.0, width))
        self.features.append(_conv(inputs, last, 1, 1, norm))
        self.channels = (*(scale_channels(channels, width) for channels in (24, 32, 96)), last)
        self.strides = (4, 8, 16, 32)
        initialise(self, "fan_in")
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """The stem with the first block, then the layers of strides 4, 8, 16 and 32."""
        layers = list(self.features)
        return [layers[start:end] for start, end in zip((0, *ENDS), ENDS, strict=False)]


class MobileNetV2Classifier(MobileNetV2):
    """MobileNet V2 with average pool, dropout and linear layer: pictures (B, 3, H, W) to logits (B, classes)."""

    def __init__(self, num_classes: int = 1000, *, padding: Padding = "reference", **options: Any) -> None:
        super().__init__(padding=padding, **options)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(self.channels[-1], num_classes))

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        return self.classifier(super().forward(images)[-1].mean((2, 3)))
