"""Inception V1, GoogLeNet (Szegedy et al., 2015), with FPN, in its form with batch norm, which has published weights.

Levels: 192, 480, 832 and 1024 channels at strides 4, 8, 16 and 32; anchors and pooling levels are those of `fpn_r50`.
model.backbone.norm=none has the paper's 5x5 convolutions. Its published weights expect colours in -1 to 1.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_inception_v1",
        "model.backbone.name": "inception_v1",
        "model.pixel_mean": (127.5, 127.5, 127.5),
        "model.pixel_std": (127.5, 127.5, 127.5),
    }
)
