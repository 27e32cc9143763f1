"""Backbones: pictures to feature levels. Each has `channels` and `strides`, finest level first, and one forward.

`BACKBONES[name](norm=..., stride_in_1x1=..., frozen_stages=...)` builds one.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from detkit.backbones.resnet import ResNet

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "resnet18": partial(ResNet, 18),
    "resnet34": partial(ResNet, 34),
    "resnet50": partial(ResNet, 50),
    "resnet101": partial(ResNet, 101),
    "resnet152": partial(ResNet, 152),
}
