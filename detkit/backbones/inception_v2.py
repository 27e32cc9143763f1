"""Inception V2 (Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015, section 6, table 1).

5x5 convolutions became two 3x3 (figure 5), 7x7 became 1x7 and 7x1 (figure 6), and 3x3 became 1x3 and 3x1 side by side
on the coarsest grid (figure 7); grids shrink by convolutions and a pool of stride 2 in parallel (figure 10).

Table 1 gives what each block puts out, not the widths inside the blocks (the paper leaves them to a `model.txt` beside
it). Here the blocks of figures 5 and 7 have the widths of Inception V3, which its authors published, and pools of
stride 1 are means, as there. The bottlenecks of figure 6 have half of V3's widths (the first twice: five blocks, not
four): so the net has the 4.8 G multiply-adds that table 3 gives for this layout (row "Factorized 7x7") and less than
the abstract's 25 M parameters; with V3's bottlenecks it would have 6.1 G.

Levels: channels 80, 288, 768, 2048 at strides 4, 8, 16, 32: the convolution after the pool, then the last block of each
grid. Stages: the stem up to stride 2, then one for each level. There is no reference for names of parameters.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding
from detkit.backbones.inception_blocks import Layers, Parallel

# Of the five blocks of the 17x17 grid.
BOTTLENECKS = (64, 64, 80, 80, 96)


class InceptionA(Parallel):
    """The block of the 35x35 grid (figure 5): 288 channels in and out."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(
            branch0=layers.conv(288, 64),
            branch1=layers.row(288, (48, 1), (64, 3)),
            branch2=layers.row(288, (64, 1), (96, 3), (96, 3)),
            branch3=layers.pool_row(288, 64),
        )


class InceptionB(Parallel):
    """The block of the 17x17 grid (figure 6 with n = 7) and of a bottleneck `width`: 768 channels in and out."""

    def __init__(self, layers: Layers, width: int) -> None:
        double = ((width, 1), (width, (1, 7)), (width, (7, 1)), (width, (1, 7)), (192, (7, 1)))
        super().__init__(
            branch0=layers.conv(768, 192),
            branch1=layers.row(768, (width, 1), (width, (1, 7)), (192, (7, 1))),
            branch2=layers.row(768, *double),
            branch3=layers.pool_row(768, 192),
        )


class InceptionC(Parallel):
    """The block of the 8x8 grid (figure 7), which widens: 2,048 channels out."""

    def __init__(self, layers: Layers, inputs: int) -> None:
        super().__init__(
            branch0=layers.conv(inputs, 320),
            branch1=nn.Sequential(layers.conv(inputs, 384), self.fan(layers)),
            branch2=nn.Sequential(*layers.row(inputs, (448, 1), (384, 3)), self.fan(layers)),
            branch3=layers.pool_row(inputs, 192),
        )

    @staticmethod
    def fan(layers: Layers) -> Parallel:
        """1x3 and 3x1 side by side."""
        return Parallel(wide=layers.conv(384, 384, (1, 3)), tall=layers.conv(384, 384, (3, 1)))


class Reduction(Parallel):
    """Half the grid (figure 10), `single` + `double` channels more than come in; `width` of the 1x1 convolutions."""

    def __init__(self, layers: Layers, inputs: int, width: int, single: int, double: int) -> None:
        super().__init__(
            branch0=layers.row(inputs, (width, 1), reduce=single),
            branch1=layers.row(inputs, (width, 1), (double, 3), reduce=double),
            branch2=layers.max_pool(),
        )


class InceptionV2(Backbone):
    """Inception V2 as four feature levels."""

    def __init__(self, *, norm: str = "batch", frozen_stages: int = 0, padding: Padding = "centred") -> None:
        super().__init__()
        self.channels = (80, 288, 768, 2048)
        self.strides = (4, 8, 16, 32)
        self.layers = layers = Layers(norm, padding)
        self.smallest = layers.smallest
        self.conv1 = layers.conv(3, 32, 3, stride=2)
        self.conv2 = layers.conv(32, 32, 3, valid=True)
        self.conv3 = layers.conv(32, 64, 3)
        self.pool = layers.max_pool()
        self.conv4 = layers.conv(64, 80, 3, valid=True)
        self.conv5 = layers.conv(80, 192, 3, stride=2)
        self.conv6 = layers.conv(192, 288, 3)  # the table does not call it padded, but its grid stays 35x35
        self.inception_a = nn.Sequential(*(InceptionA(layers) for _ in range(3)))
        self.reduction_a = Reduction(layers, 288, 64, single=384, double=96)
        self.inception_b = nn.Sequential(*(InceptionB(layers, width) for width in BOTTLENECKS))
        self.reduction_b = Reduction(layers, 768, 192, single=320, double=192)
        self.inception_c = nn.Sequential(InceptionC(layers, 1280), InceptionC(layers, 2048))
        layers.initialise(self)
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """The stem up to stride 2; stride 4; then what leads to each grid and its blocks."""
        return [
            [self.conv1, self.conv2, self.conv3],
            [self.pool, self.conv4],
            [self.conv5, self.conv6, self.inception_a],
            [self.reduction_a, self.inception_b],
            [self.reduction_b, self.inception_c],
        ]


class Auxiliary(nn.Module):
    """The side head on the last 17x17 grid (figure 8): (B, 768, 17, 17) to logits (B, classes).

    5x5 mean of stride 3, 1x1 convolution to 128 channels with norm, 1,024 units, logits. The units have no norm: with
    one ("BN-auxiliary" of table 3) the paper calls the net Inception V3. Other grids are averaged to 5x5.
    """

    def __init__(self, layers: Layers, num_classes: int) -> None:
        super().__init__()
        self.conv = layers.conv(768, 128)
        self.hidden = nn.Linear(5 * 5 * 128, 1024)
        self.logits = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) >= 5:
            x = F.avg_pool2d(x, 5, stride=3)
        x = F.adaptive_avg_pool2d(self.conv(x), 5)
        return self.logits(F.relu(self.hidden(x.flatten(1))))


class InceptionV2Classifier(InceptionV2):
    """With the average pool and linear layer of table 1 and the auxiliary classifier of section 4.

    Of GoogLeNet's two auxiliary classifiers the paper keeps the upper one, as a regulariser. It states no weight of its
    loss; 0.4 is that of the authors' published Inception V3.
    """

    auxiliary_weight = 0.4

    def __init__(self, num_classes: int = 1000, *, padding: Padding = "reference", **options: Any) -> None:
        super().__init__(padding=padding, **options)
        self.auxiliary = Auxiliary(self.layers, num_classes)
        self.fc = nn.Linear(self.channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        """Pictures (B, 3, 299, 299) to logits (B, classes); in training mode with the auxiliary logits after them."""
        levels = super().forward(images)
        logits = self.fc(levels[-1].mean((2, 3)))
        return (logits, self.auxiliary(levels[-2])) if self.training else logits
