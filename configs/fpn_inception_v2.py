"""Inception V2 (Szegedy et al., Rethinking the Inception Architecture, 2016, table 1) with FPN.

Factorised n x n convolutions and batch norm; the levels are the last places of strides 4, 8, 16 and 32; anchors and
pooling levels are those of `fpn_r50`.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_inception_v2",
        "model.backbone.name": "inception_v2",
        "model.pixel_mean": (127.5, 127.5, 127.5),
        "model.pixel_std": (127.5, 127.5, 127.5),
    }
)
