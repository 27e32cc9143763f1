"""ShuffleNet V2 (Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, 2018, table 5).

Names of parameters are torchvision's. Levels: channels 24, 116, 232, 1024 at strides 4, 8, 16, 32 (width 1.0): the
max pool, stage2, stage3, and conv5, which is the last place of stride 32. Stages: conv1 with the max pool; stage2;
stage3; stage4 with conv5. B pictures, H x W pixels.
"""

from typing import Any

import torch
from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding, check_padding, initialise
from detkit.norm import make_norm

# Width multiplier to channels of stage2, stage3, stage4 and conv5. The paper's table has 48, 96, 192 for 0.5 and
# 244, 488, 976 for 2.0, as here and in torchvision.
CHANNELS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
STEM = 24
UNITS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    """Two branches, joined and shuffled (figure 3): c passes half of the channels through, d halves the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        self.branch1 = nn.Sequential()
        if stride == 2:
            self.branch1 = nn.Sequential(*_depthwise(inputs, 2, norm), *_pointwise(inputs, half, norm))
        entering = inputs if stride == 2 else half
        self.branch2 = nn.Sequential(
            *_pointwise(entering, half, norm), *_depthwise(half, stride, norm), *_pointwise(half, half, norm)
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1) if self.stride == 1 else (x, x)
        return torch.channel_shuffle(torch.cat((self.branch1(left), self.branch2(right)), dim=1), 2)


def _pointwise(inputs: int, outputs: int, norm: str) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 1, bias=norm == "none")
    return [conv, make_norm(norm, outputs), nn.ReLU(inplace=True)]


def _depthwise(channels: int, stride: int, norm: str) -> list[nn.Module]:
    """No ReLU behind it (figure 3)."""
    conv = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=norm == "none")
    return [conv, make_norm(norm, channels)]


class ShuffleNetV2(Backbone):
    """ShuffleNet V2 of width 0.5, 1.0, 1.5 or 2.0."""

    def __init__(
        self,
        width: float = 1.0,
        *,
        norm: str = "batch",
        frozen_stages: int = 0,
        padding: Padding = "centred",
    ) -> None:
        super().__init__()
        check_padding(padding)  # the published one is centred already
        if width not in CHANNELS:
            raise ValueError(f"expected a ShuffleNet V2 of width {', '.join(map(str, CHANNELS))}, got {width}")
        *stages, last = CHANNELS[width]
        self.channels = (STEM, *stages[:2], last)
        self.strides = (4, 8, 16, 32)
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, STEM, 3, 2, padding=1, bias=norm == "none"), make_norm(norm, STEM), nn.ReLU(inplace=True)
        )
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = STEM
        for number, (outputs, units) in enumerate(zip(stages, UNITS, strict=True), start=2):
            layers = [ShuffleUnit(inputs, outputs, 2, norm)]
            layers += [ShuffleUnit(outputs, outputs, 1, norm) for _ in range(units - 1)]
            self.add_module(f"stage{number}", nn.Sequential(*layers))
            inputs = outputs
        self.conv5 = nn.Sequential(*_pointwise(inputs, last, norm))
        initialise(self, "fan_in")
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """conv1 with the max pool; stage2; stage3; stage4 with conv5."""
        second, third, fourth = (self.get_submodule(f"stage{number}") for number in (2, 3, 4))
        return [[self.conv1, self.maxpool], [second], [third], [fourth, self.conv5]]


class ShuffleNetV2Classifier(ShuffleNetV2):
    """ShuffleNet V2 with the average pool and the linear layer of the paper: pictures (B, 3, H, W) to logits."""

    def __init__(
        self, width: float = 1.0, num_classes: int = 1000, *, padding: Padding = "reference", **options: Any
    ) -> None:
        super().__init__(width, padding=padding, **options)
        self.fc = nn.Linear(self.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        return self.fc(super().forward(images)[-1].mean((2, 3)))
