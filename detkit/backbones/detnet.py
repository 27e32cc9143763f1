"""DetNet-59 (Li et al., DetNet: A Backbone network for Object Detection, 2018, section 3 and figure 2).

Stages 1 to 4 are those of ResNet-50. Stages 5 and 6 keep stride 16, so that the coarse levels stay sharp, and widen
their view by dilation 2: block B (with a projection in the shortcut), then A and A, of width 256 and 1,024 channels.
Levels: channels 256, 512, 1024, 1024, 1024 at strides 4, 8, 16, 16, 16. Stages: the stem, then layer1 to layer5.

The abstract gives 4.8 G multiply-adds (at 224 px). They are met with 1,024 channels out of the new stages and the
stride in the first 1x1 (5.0 G with it in the 3x3); published re-implementations with 256 channels have 4.1 G.
"""

from typing import Any

from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding, check_padding
from detkit.backbones.resnet import Bottleneck, initialise_residual
from detkit.norm import make_norm

BLOCKS = (3, 4, 6, 3, 3)
WIDTHS = (64, 128, 256, 256, 256)


class DetNet(Backbone):
    """DetNet-59 as five feature levels, of which the last three have the same stride."""

    def __init__(
        self,
        *,
        norm: str = "batch",
        frozen_stages: int = 0,
        padding: Padding = "centred",
        stride_in_1x1: bool = True,
    ) -> None:
        super().__init__()
        check_padding(padding)  # the published one is centred already
        self.channels = tuple(Bottleneck.expansion * width for width in WIDTHS)
        self.strides = (4, 8, 16, 16, 16)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(norm, 64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        for number, (blocks, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True), start=1):
            stride = 2 if number in (2, 3) else 1
            dilation = 2 if number > 3 else 1
            layers = [Bottleneck(inputs, width, stride, norm, stride_in_1x1, dilation, project=True)]
            inputs = Bottleneck.expansion * width
            layers += [Bottleneck(inputs, width, 1, norm, dilation=dilation) for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        initialise_residual(self)
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """The stem, then layer1 to layer5."""
        stem = [self.conv1, self.bn1, self.relu, self.maxpool]
        return [stem, *([self.get_submodule(f"layer{stage}")] for stage in range(1, 6))]


class DetNetClassifier(DetNet):
    """DetNet-59 with an average pool and a linear layer, to be pretrained: pictures (B, 3, H, W) to logits."""

    def __init__(self, num_classes: int = 1000, *, padding: Padding = "reference", **options: Any) -> None:
        super().__init__(padding=padding, **options)
        self.fc = nn.Linear(self.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        return self.fc(super().forward(images)[-1].mean((2, 3)))
