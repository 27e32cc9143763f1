"""Inception V1, or GoogLeNet (Szegedy et al., Going deeper with convolutions, 2015, table 1).

`norm="batch"` is torchvision's net, with its names of parameters: batch norm, 3x3 where the paper has 5x5, and a 2x2
pool before the last two blocks. `norm="none"` is the paper's, with true 5x5 convolutions, biases and only 3x3 pools:
section 1 gives it 1.5 G multiply-adds, and by table 1 it has 1.58 G, as the table's first row counts 34 M where 7x7
convolutions of its width have 118 M. Four rows print other numbers of parameters than follow from their widths.
Levels: channels 192, 480, 832, 1024 at strides 4, 8, 16, 32: conv3, inception3b, inception4e, inception5b.
Stages: the stem up to stride 2, then one for each level.
"""

from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkit.backbones.alexnet import response_norm
from detkit.backbones.base import Backbone, Padding, PairPool, ceil_max_pool, check_size
from detkit.backbones.inception_blocks import ConvNorm, Layers, Parallel

# Table 1: inputs, #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
BLOCKS = {
    "inception3a": (192, 64, 96, 128, 16, 32, 32),
    "inception3b": (256, 128, 128, 192, 32, 96, 64),
    "inception4a": (480, 192, 96, 208, 16, 48, 64),
    "inception4b": (512, 160, 112, 224, 24, 64, 64),
    "inception4c": (512, 128, 128, 256, 24, 64, 64),
    "inception4d": (512, 112, 144, 288, 32, 64, 64),
    "inception4e": (528, 256, 160, 320, 32, 128, 128),
    "inception5a": (832, 256, 160, 320, 32, 128, 128),
    "inception5b": (832, 384, 192, 384, 48, 128, 128),
}
STAGES = (
    "conv1",
    "maxpool1 lrn1 conv2 conv3",
    "lrn2 maxpool2 inception3a inception3b",
    "maxpool3 inception4a inception4b inception4c inception4d inception4e",
    "maxpool4 inception5a inception5b",
)


class Inception(Parallel):
    """The block with dimension reductions (figure 2b)."""

    def __init__(self, layers: Layers, widths: tuple[int, ...], five: int) -> None:
        inputs, ones, reduce3, threes, reduce5, fives, pooled = widths
        super().__init__(
            branch1=layers.conv(inputs, ones),
            branch2=layers.row(inputs, (reduce3, 1), (threes, 3)),
            branch3=layers.row(inputs, (reduce5, 1), (fives, five)),
            branch4=nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), layers.conv(inputs, pooled)),
        )


class AuxiliaryHead(nn.Module):
    """The auxiliary classifier (section 5): pool to 4x4, 1x1 convolution, 1,024 hidden units, dropout 0.7.

    The paper pools 5x5 with stride 3, torchvision whatever gives 4x4.
    """

    def __init__(self, layers: Layers, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, 3) if layers.norm == "none" else nn.AdaptiveAvgPool2d(4)
        self.conv = layers.conv(inputs, 128)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), 14 x 14 in the paper's net, to logits (B, classes)."""
        x = torch.flatten(self.conv(self.pool(x)), 1)
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


class InceptionV1(Backbone):
    """GoogLeNet as four feature levels. `lrn`: the local response norms of figure 3."""

    def __init__(
        self, *, norm: str = "batch", frozen_stages: int = 0, padding: Padding = "centred", lrn: bool = False
    ) -> None:
        super().__init__()
        self.channels = (192, 480, 832, 1024)
        self.strides = (4, 8, 16, 32)
        layers = Layers(norm, padding)
        paper = norm == "none"
        self.conv1 = ConvNorm(3, 64, 7, 2, norm, padded=True)
        self.maxpool1 = ceil_max_pool(padding)
        self.lrn1 = _response_norm(lrn)
        self.conv2 = layers.conv(64, 64)
        self.conv3 = layers.conv(64, 192, 3)
        self.lrn2 = _response_norm(lrn)
        self.maxpool2 = ceil_max_pool(padding)
        self.maxpool3 = ceil_max_pool(padding)
        self.maxpool4 = ceil_max_pool(padding) if paper else _pair(padding)
        for name, widths in BLOCKS.items():
            self.add_module(name, Inception(layers, widths, 5 if paper else 3))
        layers.initialise(self)
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """The stem up to stride 2, then the layers of strides 4, 8, 16 and 32."""
        return [[self.get_submodule(name) for name in row.split()] for row in STAGES]


def _pair(padding: Padding) -> nn.Module:
    return nn.MaxPool2d(2, stride=2, ceil_mode=True) if padding == "reference" else PairPool("max", "late")


def _response_norm(wanted: bool) -> nn.Module:
    # the paper gives no numbers
    return response_norm() if wanted else nn.Identity()


class InceptionV1Classifier(InceptionV1):
    """With average pool, dropout and linear layer, and with the two auxiliary classifiers unless `aux` is False.

    Pictures (B, 3, H, W) to logits (B, classes); in training mode a tuple of the logits and those of both auxiliary
    classifiers, whose losses count `auxiliary_weight` (section 5).
    """

    auxiliary_weight = 0.3

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        padding: Padding = "reference",
        norm: str = "batch",
        aux: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(padding=padding, norm=norm, **options)
        layers = Layers(norm, padding)
        self.aux1 = AuxiliaryHead(layers, 512, num_classes) if aux else None
        self.aux2 = AuxiliaryHead(layers, 528, num_classes) if aux else None
        self.dropout = nn.Dropout(0.4 if norm == "none" else 0.2)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        """Logits, with the auxiliary ones in training mode."""
        check_size(images)
        heads = {self.inception4a: self.aux1, self.inception4d: self.aux2} if self.training else {}
        x, auxiliary = images, []
        for layer in chain.from_iterable(self.stages()):
            x = layer(x)
            head = heads.get(layer)
            if head is not None:
                auxiliary.append(head(x))
        logits = self.fc(self.dropout(x.mean((2, 3))))
        return (logits, *auxiliary) if auxiliary else logits
