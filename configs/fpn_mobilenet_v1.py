"""MobileNet V1 (Howard et al., 2017) with FPN: depthwise and pointwise convolutions.

Levels: 128, 256, 512 and 1024 channels at strides 4, 8, 16 and 32; anchors and pooling levels are those of `fpn_r50`.
Its published weights expect colours in -1 to 1.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_mobilenet_v1",
        "model.backbone.name": "mobilenet_v1",
        "model.pixel_mean": (127.5, 127.5, 127.5),
        "model.pixel_std": (127.5, 127.5, 127.5),
    }
)
