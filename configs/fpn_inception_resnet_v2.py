"""Inception-ResNet V2 (Szegedy et al., 2017) with FPN: Inception blocks inside scaled residual connections.

The levels are the last places of strides 4, 8, 16 and 32, with its unpadded convolutions padded; anchors and pooling
levels are those of `fpn_r50`. Its published weights expect colours in -1 to 1.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_inception_resnet_v2",
        "model.backbone.name": "inception_resnet_v2",
        "model.pixel_mean": (127.5, 127.5, 127.5),
        "model.pixel_std": (127.5, 127.5, 127.5),
    }
)
