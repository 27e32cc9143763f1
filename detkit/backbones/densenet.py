"""DenseNet (Huang et al., Densely Connected Convolutional Networks, 2017, table 1), as feature levels for FPN.

Names of parameters are torchvision's. Each dense layer reads all maps before it, so a level ends behind the norm and
the ReLU that every reader of its block starts with: 256, 512, 1024, 1024 channels at strides 4, 8, 16, 32 for 121
layers (169: 256, 512, 1280, 1664; 201: 256, 512, 1792, 1920). Stages: the stem, then a dense block each, which begins
with the 1x1 convolution and the pool of the transition before it and ends with the norm and ReLU of the one after it.
"""

from collections import OrderedDict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding, PairPool, check_padding, initialise
from detkit.backbones.recompute import recompute
from detkit.norm import make_norm

LAYERS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}
GROWTH = 32
POOLS: tuple[Literal["early", "late"], ...] = ("late", "early", "late")


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1, norm, ReLU, 3x3: `GROWTH` new maps out of all maps so far (section 3, bottleneck layers).

    `memory_efficient` keeps neither the joined maps nor their norm for the backward pass but makes them again there
    (Pleiss et al., Memory-Efficient Implementation of DenseNets, 2017).
    """

    def __init__(self, inputs: int, norm: str, memory_efficient: bool) -> None:
        super().__init__()
        bias = norm == "none"
        self.memory_efficient = memory_efficient
        self.norm1 = make_norm(norm, inputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, 4 * GROWTH, 1, bias=bias)
        self.norm2 = make_norm(norm, 4 * GROWTH)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=bias)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps (B, any, H, W) of one size to (B, GROWTH, H, W)."""
        if self.memory_efficient:
            x = recompute(self._join, self.norm1, *maps, random=False)
        else:
            x = self._join(*maps)
        return self.conv2(self.relu2(self.norm2(x)))

    def _join(self, *maps: Tensor) -> Tensor:
        return self.conv1(self.relu1(self.norm1(torch.cat(maps, 1))))


class DenseBlock(nn.Module):
    """Dense layers, each of which reads the block's input and the new maps of all before it (section 3, equation 2)."""

    def __init__(self, inputs: int, layers: int, norm: str, memory_efficient: bool) -> None:
        super().__init__()
        for number in range(layers):
            layer = DenseLayer(inputs + number * GROWTH, norm, memory_efficient)
            self.add_module(f"denselayer{number + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, inputs + layers * GROWTH, H, W)."""
        maps = [x]
        for layer in self.children():
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class DenseNet(Backbone):
    """Stages: the stem, then the four dense blocks, each of which ends in a level."""

    def __init__(
        self,
        depth: int = 121,
        *,
        norm: str = "batch",
        frozen_stages: int = 0,
        padding: Padding = "centred",
        memory_efficient: bool = False,
    ) -> None:
        super().__init__()
        check_padding(padding)
        if depth not in LAYERS:
            raise ValueError(f"expected a DenseNet of {', '.join(map(str, LAYERS))} layers, got {depth}")
        self.features = nn.Sequential(_stem(norm))
        inputs, levels = 64, []
        for number, layers in enumerate(LAYERS[depth]):
            self.features.add_module(f"denseblock{number + 1}", DenseBlock(inputs, layers, norm, memory_efficient))
            channels = inputs + layers * GROWTH
            levels.append(channels)
            if number < len(POOLS):
                self.features.add_module(f"transition{number + 1}", _transition(channels, number, norm, padding))
            inputs = channels // 2
        self.features.add_module("norm5", make_norm(norm, channels))
        self.features.add_module("relu5", nn.ReLU(inplace=True))
        self.channels = tuple(levels)
        self.strides = (4, 8, 16, 32)
        initialise(self, "fan_in")
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """The stem, then the dense blocks with what lies between two levels."""
        rows = ["conv0 norm0 relu0 pool0", "denseblock1 transition1.norm transition1.relu"]
        for number in (2, 3):
            rows.append(
                f"transition{number - 1}.conv transition{number - 1}.pool "
                f"denseblock{number} transition{number}.norm transition{number}.relu"
            )
        rows.append("transition3.conv transition3.pool denseblock4 norm5 relu5")
        return [[self.features.get_submodule(name) for name in row.split()] for row in rows]


class DenseNetClassifier(DenseNet):
    """DenseNet with the paper's average pool and linear layer: pictures (B, 3, H, W) to logits (B, classes)."""

    def __init__(
        self, depth: int = 121, num_classes: int = 1000, *, padding: Padding = "reference", **options: Any
    ) -> None:
        super().__init__(depth, padding=padding, **options)
        self.classifier = nn.Linear(self.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        return self.classifier(super().forward(images)[-1].mean((2, 3)))


def _stem(norm: str) -> "OrderedDict[str, nn.Module]":
    """7x7/2 and 3x3/2 max pool: to 64 channels at stride 4."""
    return OrderedDict(
        conv0=nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=norm == "none"),
        norm0=make_norm(norm, 64),
        relu0=nn.ReLU(inplace=True),
        pool0=nn.MaxPool2d(3, stride=2, padding=1),
    )


def _transition(inputs: int, number: int, norm: str, padding: Padding) -> nn.Sequential:
    """Half the channels and half the size (section 3, transition layers and compression)."""
    when = POOLS[number]
    return nn.Sequential(
        OrderedDict(
            norm=make_norm(norm, inputs),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(inputs, inputs // 2, 1, bias=norm == "none"),
            pool=PairPool("avg", when) if padding == "centred" else nn.AvgPool2d(2, 2),
        )
    )
