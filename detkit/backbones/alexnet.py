"""AlexNet in its one-column form (Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014,
section 5), as feature levels for FPN.

Names of parameters are torchvision's. Levels: channels 64, 192, 256 at strides 4, 8, 16, behind the first, the second
and the fifth convolution. Stages: one per level. `lrn` adds the local response norm of the two-column net
(Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012, section 3.3).
"""

from typing import Any

import torch
from torch import Tensor, nn

from detkit.backbones.base import Backbone, Padding, check_norm, check_padding, initialise


class AlexNet(Backbone):
    """Three stages: convolution 1, convolution 2, convolutions 3 to 5. Each ends in a level.

    With `lrn` the first two levels are behind the response norm, where the next layer reads too.
    """

    def __init__(
        self,
        *,
        norm: str = "none",
        frozen_stages: int = 0,
        padding: Padding = "centred",
        lrn: bool = False,
    ) -> None:
        super().__init__()
        check_padding(padding)
        check_norm(norm, ("none",), "AlexNet")
        self.channels = (64, 192, 256)
        self.strides = (4, 8, 16)
        pads = padding == "centred"
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=5 if pads else 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=int(pads)),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=int(pads)),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.lrn: nn.Module = nn.Identity()
        initialise(self)
        if lrn:
            self.lrn = norm_layer = response_norm()
            _make_up_for(norm_layer, self.features[0], self.features[3])
        self.freeze(frozen_stages)

    def stages(self) -> list[list[nn.Module]]:
        """Convolution 1, convolution 2, convolutions 3 to 5, each but the first with the pool before it."""
        layers = list(self.features)
        return [[*layers[:2], self.lrn], [*layers[2:5], self.lrn], layers[5:]]


class AlexNetClassifier(AlexNet):
    """AlexNet with its last pool and three linear layers, dropout before the first two: pictures to logits."""

    def __init__(self, num_classes: int = 1000, *, padding: Padding = "reference", **options: Any) -> None:
        super().__init__(padding=padding, **options)
        self.pool = nn.MaxPool2d(3, stride=2, padding=int(padding == "centred"))
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )
        initialise(self.classifier)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, classes)."""
        last = super().forward(images)[-1]
        return self.classifier(self.avgpool(self.pool(last)).flatten(1))


def response_norm() -> nn.LocalResponseNorm:
    """Each activation over (2 + 1e-4 * the sum of squares of its 5 neighbouring channels) ** 0.75, itself included.

    PyTorch divides alpha by the number of channels in the sum, the paper does not.
    """
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


@torch.no_grad()
def _make_up_for(norm: nn.LocalResponseNorm, *convs: nn.Module) -> None:
    """Scale up the convolutions before the norm: it divides even small activations by 2 ** 0.75, each time."""
    for conv in convs:
        assert isinstance(conv, nn.Conv2d)
        conv.weight.mul_(norm.k**norm.beta)
