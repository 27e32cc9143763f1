"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le, 2019, table 1) with ReLU6 and without squeeze-and-excitation.

Names of parameters are those of timm's `tf_efficientnet_lite0`. Levels: channels 24, 40, 112, 1280 at strides 4, 8, 16,
32. Stages: the stem (stride 2, with the first row of blocks), then four that each end in a level.
Its published padding is TensorFlow's: what an even size lacks is padded on the right and at the bottom only.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding, check_padding, initialise
from detkit.norm import make_norm

EPS = 1e-3
# expansion, kernel, stride, channels, blocks of each row (table 1, stages 2 to 8)
ROWS = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
HEAD = 1280


class SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME: to ceil(size / stride) cells, the odd pixel right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D, ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        rows, columns = (
            max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in (x.shape[-2], x.shape[-1])
        )
        return super().forward(F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)))


def _conv(inputs: int, outputs: int, kernel: int, stride: int, padding: Padding, groups: int = 1) -> nn.Conv2d:
    if stride > 1 and padding == "reference":
        return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


class Separable(nn.Module):
    """Depthwise convolution, then a linear 1x1: the block without expansion."""

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__()
        self.conv_dw = _conv(inputs, inputs, 3, 1, "centred", groups=inputs)
        self.bn1 = make_norm(norm, inputs, EPS)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = make_norm(norm, outputs, EPS)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D, H, W)."""
        return self.bn2(self.conv_pw(self.act(self.bn1(self.conv_dw(x)))))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1; a shortcut where the shape stays (MobileNetV2, figure 4)."""

    def __init__(
        self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int, norm: str, padding: Padding
    ) -> None:
        super().__init__()
        width = inputs * expansion
        self.conv_pw = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = make_norm(norm, width, EPS)
        self.conv_dw = _conv(width, width, kernel, stride, padding, groups=width)
        self.bn2 = make_norm(norm, width, EPS)
        self.conv_pwl = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = make_norm(norm, outputs, EPS)
        self.act = nn.ReLU6(inplace=True)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D, ceil(H / stride), ceil(W / stride))."""
        out = self.act(self.bn1(self.conv_pw(x)))
        out = self.act(self.bn2(self.conv_dw(out)))
        out = self.bn3(self.conv_pwl(out))
        return out + x if self.shortcut else out


class EfficientNetLite(Backbone):
    """EfficientNet-Lite0 as four feature levels."""

    def __init__(self, *, norm: str = "batch", frozen_stages: int = 0, padding: Padding = "centred") -> None:
        super().__init__()
        check_padding(padding)
        self.channels = (24, 40, 112, HEAD)
        self.strides = (4, 8, 16, 32)
        self.conv_stem = _conv(3, 32, 3, 2, padding)
        self.bn1 = make_norm(norm, 32, EPS)
        self.act = nn.ReLU6(inplace=True)
        self.blocks = nn.Sequential()
        inputs = 32
        for expansion, kernel, stride, outputs, count in ROWS:
            row = nn.Sequential()
            for number in range(count):
                if expansion == 1:
                    row.append(Separable(inputs, outputs, norm))
                else:
                    first = stride if number == 0 else 1
                    row.append(InvertedResidual(inputs, outputs, expansion, kernel, first, norm, padding))
                inputs = outputs
            self.blocks.append(row)
        self.conv_head = nn.Conv2d(inputs, HEAD, 1, bias=False)
        self.bn2 = make_norm(norm, HEAD, EPS)
        initialise(self, "fan_in")
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """The stem with the first row of blocks, then up to the last block of each stride."""
        rows = list(self.blocks)
        head = [self.conv_head, self.bn2, self.act]
        return [[self.conv_stem, self.bn1, self.act, rows[0]], rows[1:2], rows[2:3], rows[3:5], [*rows[5:], *head]]


class EfficientNetLiteClassifier(EfficientNetLite):
    """With the average pool and the linear layer: pictures (B, 3, H, W) to logits (B, classes)."""

    def __init__(
        self, num_classes: int = 1000, *, padding: Padding = "reference", dropout: float = 0.2, **options: Any
    ) -> None:
        super().__init__(padding=padding, **options)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(HEAD, num_classes)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        return self.classifier(self.dropout(super().forward(images)[-1].mean((2, 3))))
