"""What the Inceptions are made of: convolution + norm + ReLU, pools, parallel branches.

The published nets leave the borders of some layers unpadded ("valid", V in the figures): those of stride 2, and a few
in the stem. `Layers` pads these too when cells have to lie where strides say (`padding="centred"`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detkit.backbones.base import SMALLEST, Padding, SmallestPicture, check_padding, initialise
from detkit.norm import make_norm

EPS = 1e-3  # of the norms, as in the nets that the authors published
# One pixel less, and the unpadded layers leave no cell at stride 32.
SMALLEST_UNPADDED = SmallestPicture(
    75, " under padding=reference, which leaves no cell of smaller ones", "take padding=centred"
)

Kernel = int | tuple[int, int]


class ConvNorm(nn.Module):
    """Convolution, norm, ReLU. The convolution has a bias only where there is no norm."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, stride: int, norm: str, padded: bool) -> None:
        super().__init__()
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (size[0] // 2, size[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=norm == "none")
        self.bn = make_norm(norm, outputs, EPS)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class Parallel(nn.Module):
    """Branches that read the same input, joined along the channels in the order in which they are given."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


@dataclass(frozen=True)
class Layers:
    """Makes the layers of one net: all with the same kind of norm and the same padding."""

    norm: str
    padding: Padding

    def __post_init__(self) -> None:
        check_padding(self.padding)

    @property
    def smallest(self) -> SmallestPicture:
        """What a net of such layers needs."""
        return SMALLEST_UNPADDED if self.padding == "reference" else SMALLEST

    def conv(
        self, inputs: int, outputs: int, kernel: Kernel = 1, stride: int = 1, valid: bool | None = None
    ) -> ConvNorm:
        """Convolution, norm, ReLU. `valid`: unpadded in the published net; by default where the stride is not 1."""
        valid = stride > 1 if valid is None else valid
        return ConvNorm(inputs, outputs, kernel, stride, self.norm, padded=self.padding == "centred" or not valid)

    def row(self, inputs: int, *steps: tuple[int, Kernel], reduce: int | None = None) -> nn.Sequential:
        """Convolutions (outputs, kernel) of stride 1 one after the other; then 3x3 of stride 2 to `reduce` channels."""
        layers: list[nn.Module] = []
        for outputs, kernel in steps:
            layers.append(self.conv(inputs, outputs, kernel))
            inputs = outputs
        if reduce is not None:
            layers.append(self.conv(inputs, reduce, 3, stride=2))
        return nn.Sequential(*layers)

    def max_pool(self) -> nn.Module:
        """3x3 of stride 2."""
        return nn.MaxPool2d(3, stride=2, padding=1 if self.padding == "centred" else 0)

    def pool_row(self, inputs: int, outputs: int) -> nn.Sequential:
        """The branch of an Inception block that pools: 3x3 mean of stride 1, then a 1x1 convolution."""
        pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        return nn.Sequential(pool, self.conv(inputs, outputs))

    def initialise(self, model: nn.Module) -> None:
        """Kaiming fan-out as in all backbones; without norm fan-in.

        The 1x1 convolutions of these nets narrow so much that under fan-out the activations grow a thousandfold.
        """
        initialise(model)
        if self.norm == "none":
            for module in model.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
