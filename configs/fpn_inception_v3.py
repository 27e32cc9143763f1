"""Inception V3 (Szegedy et al., Rethinking the Inception Architecture, 2016) with FPN.

Levels: 192, 288, 768 and 2048 channels at strides 4, 8, 16 and 32, with its unpadded convolutions padded, so that
cells lie where strides say; anchors and pooling levels are those of `fpn_r50`. Its published weights expect colours
in -1 to 1.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_inception_v3",
        "model.backbone.name": "inception_v3",
        "model.pixel_mean": (127.5, 127.5, 127.5),
        "model.pixel_std": (127.5, 127.5, 127.5),
    }
)
