"""SqueezeNet 1.0 (Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016, table 1) and 1.1
(the authors' repository: smaller first convolution, earlier pools), as feature levels for FPN.

Names of parameters are torchvision's. Levels, at strides 4, 8, 16, behind the last fire module of each: channels 256,
512, 512 of 1.0 (fire4, fire8, fire9), 128, 256, 512 of 1.1 (fire3, fire5, fire9). Stages: the first convolution, then
one per level.
"""

from typing import Any

import torch
from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding, ceil_max_pool, check_norm, check_padding, initialise

# Width and kernel of conv1, and squeezed channels of fire2 to fire9, in groups with a pool before each.
VERSIONS: dict[str, tuple[int, int, tuple[tuple[int, ...], ...]]] = {
    "1_0": (96, 7, ((16, 16, 32), (32, 48, 48, 64), (64,))),
    "1_1": (64, 3, ((16, 16), (32, 32), (48, 48, 64, 64))),
}


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 ones side by side to four times as many each (figure 1)."""

    def __init__(self, inputs: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, 4 * squeezed, 1)
        self.expand3x3 = nn.Conv2d(squeezed, 4 * squeezed, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.squeeze(x))
        return self.relu(torch.cat((self.expand1x1(x), self.expand3x3(x)), 1))


class SqueezeNet(Backbone):
    """Four stages: the first convolution, then three groups of fire modules, each of which ends in a level."""

    def __init__(
        self,
        version: str = "1_1",
        *,
        norm: str = "none",
        frozen_stages: int = 0,
        padding: Padding = "centred",
    ) -> None:
        super().__init__()
        check_padding(padding)
        check_norm(norm, ("none",), "SqueezeNet")
        if version not in VERSIONS:
            raise ValueError(f"expected a SqueezeNet of version {', '.join(VERSIONS)}, got {version}")
        inputs, kernel, groups = VERSIONS[version]
        self.channels = tuple(8 * group[-1] for group in groups)
        self.strides = (4, 8, 16)
        pads = kernel // 2 if padding == "centred" else 0
        self.features = nn.Sequential(nn.Conv2d(3, inputs, kernel, stride=2, padding=pads), nn.ReLU(inplace=True))
        for group in groups:
            self.features.append(ceil_max_pool(padding))
            for squeezed in group:
                self.features.append(Fire(inputs, squeezed))
                inputs = 8 * squeezed
        initialise(self)
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """Each stage starts with a pool, but for the first."""
        rows: list[list[nn.Module]] = [[]]
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                rows.append([])
            rows[-1].append(layer)
        return rows


class SqueezeNetClassifier(SqueezeNet):
    """SqueezeNet with dropout, a 1x1 convolution to the classes and the average pool: pictures to logits (B, classes).

    The published nets have a ReLU behind the last convolution, so no logit is below 0.
    """

    def __init__(
        self, version: str = "1_1", num_classes: int = 1000, *, padding: Padding = "reference", **options: Any
    ) -> None:
        super().__init__(version, padding=padding, **options)
        last = nn.Conv2d(self.channels[-1], num_classes, 1)
        initialise(last)
        nn.init.normal_(last.weight, std=0.01)
        self.classifier = nn.Sequential(nn.Dropout(), last, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        return self.classifier(super().forward(images)[-1]).flatten(1)
