"""Inception V4 (Szegedy et al., 2017) with FPN: stem, blocks A, B and C and two reductions.

The levels are the last places of strides 4, 8, 16 and 32, with its unpadded convolutions padded; anchors and pooling
levels are those of `fpn_r50`. Its published weights expect colours in -1 to 1.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_inception_v4",
        "model.backbone.name": "inception_v4",
        "model.pixel_mean": (127.5, 127.5, 127.5),
        "model.pixel_std": (127.5, 127.5, 127.5),
    }
)
