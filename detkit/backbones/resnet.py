"""ResNet (He et al., Deep Residual Learning, 2015, table 1), as feature levels for FPN.

Names of parameters are torchvision's. Levels: channels 256, 512, 1024, 2048 at strides 4, 8, 16, 32
(a quarter of the channels for 18 and 34 layers). B pictures, H x W pixels.
"""

from typing import Any

from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding, check_padding
from detkit.norm import make_norm

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (figure 5, left)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, norm: str, stride_in_1x1: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = make_norm(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = make_norm(norm, width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out.add_(x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (figure 5, right).

    The stride is in the 3x3 as in torchvision, or in the first 1x1 as in the paper and in detectron2's weights.
    `dilation` of the 3x3 and `project`, a projection in the shortcut where none is needed, are DetNet's.
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        norm: str,
        stride_in_1x1: bool = False,
        dilation: int = 1,
        project: bool = False,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(inputs, width, 1, first, bias=False)
        self.bn1 = make_norm(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = make_norm(norm, width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = make_norm(norm, 4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, 4 * width, stride, norm, project)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out.add_(x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int, norm: str, project: bool = False) -> nn.Sequential | None:
    """The projection (option B of the paper) where the shape changes, or always; None: the identity."""
    if stride == 1 and inputs == outputs and not project:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), make_norm(norm, outputs))


class ResNet(Backbone):
    """Stages: the stem, then layer1 to layer4, each of which ends in a level."""

    def __init__(
        self,
        depth: int = 50,
        *,
        norm: str = "batch",
        frozen_stages: int = 0,
        padding: Padding = "centred",
        stride_in_1x1: bool = False,
    ) -> None:
        super().__init__()
        check_padding(padding)  # the published one is centred already
        if depth not in STAGES:
            raise ValueError(f"expected a ResNet of {', '.join(map(str, STAGES))} layers, got {depth}")
        block = BasicBlock if depth < 50 else Bottleneck
        self.channels = tuple(64 * 2**stage * block.expansion for stage in range(4))
        self.strides = (4, 8, 16, 32)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(norm, 64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = (64, *self.channels[:3])
        for stage, blocks in enumerate(STAGES[depth]):
            layers = [block(inputs[stage], 64 * 2**stage, 1 if stage == 0 else 2, norm, stride_in_1x1)]
            layers += [block(self.channels[stage], 64 * 2**stage, 1, norm) for _ in range(blocks - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        initialise_residual(self)
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """The stem, then layer1 to layer4."""
        stem = [self.conv1, self.bn1, self.relu, self.maxpool]
        return [stem, *([self.get_submodule(f"layer{stage}")] for stage in range(1, 5))]


class ResNetClassifier(ResNet):
    """ResNet with the average pool and the linear layer of the paper: pictures (B, 3, H, W) to logits (B, classes)."""

    def __init__(
        self, depth: int = 50, num_classes: int = 1000, *, padding: Padding = "reference", **options: Any
    ) -> None:
        super().__init__(depth, padding=padding, **options)
        self.fc = nn.Linear(self.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        return self.fc(super().forward(images)[-1].mean((2, 3)))


def initialise_residual(model: nn.Module) -> None:
    """He et al., Delving Deep into Rectifiers; the last norm of a block starts at 0 (Goyal et al., 2017, 5.1)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for module in model.modules():
        last = {BasicBlock: "bn2", Bottleneck: "bn3"}.get(type(module))
        norm = getattr(module, last) if last else None
        if isinstance(norm, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.zeros_(norm.weight)
