"""VGG-16 (Simonyan and Zisserman, Very Deep Convolutional Networks, 2015, table 1, column D), as levels for FPN.

Names of parameters are torchvision's: vgg16 without norm, vgg16_bn with one behind each convolution. Levels: channels
256, 512, 512, 512 at strides 4, 8, 16, 32: the ends of the third, fourth and fifth group of convolutions, and the pool
behind the last. Stages: the five groups, each with the pool before it, and the last pool.
"""

from typing import Any

from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding, PairPool, check_padding, initialise
from detkit.norm import make_norm

# Table 1, column D: channels and number of 3x3 convolutions between the pools.
GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG(Backbone):
    """Six stages: five groups of convolutions, then the last pool. The last four end in a level.

    The convolutions keep their bias under a norm, as torchvision's weights have it.
    """

    def __init__(self, *, norm: str = "none", frozen_stages: int = 0, padding: Padding = "centred") -> None:
        super().__init__()
        check_padding(padding)
        self.channels = (256, 512, 512, 512)
        self.strides = (4, 8, 16, 32)
        self.features = nn.Sequential()
        inputs = 3
        for group, (channels, convs) in enumerate(GROUPS):
            for _ in range(convs):
                self.features.extend(_conv(inputs, channels, norm))
                inputs = channels
            self.features.append(_pool(group, padding))
        initialise(self)
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """Each stage starts with a pool, but for the first."""
        rows: list[list[nn.Module]] = [[]]
        for layer in self.features:
            if isinstance(layer, (nn.MaxPool2d, PairPool)):
                rows.append([])
            rows[-1].append(layer)
        return rows


class VGGClassifier(VGG):
    """VGG-16 with three linear layers, dropout behind the first two (section 3.1): pictures to logits (B, classes)."""

    def __init__(self, num_classes: int = 1000, *, padding: Padding = "reference", **options: Any) -> None:
        super().__init__(padding=padding, **options)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )
        initialise(self.classifier)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        return self.classifier(self.avgpool(super().forward(images)[-1]).flatten(1))


def _conv(inputs: int, outputs: int, norm: str) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    between = [] if norm == "none" else [make_norm(norm, outputs)]
    return [conv, *between, nn.ReLU(inplace=True)]


def _pool(group: int, padding: Padding) -> nn.Module:
    if padding == "reference":
        return nn.MaxPool2d(2, stride=2)
    return PairPool("max", "early" if group % 2 else "late")
