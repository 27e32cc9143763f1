"""MobileNet V2 (Sandler et al., 2018) with FPN: inverted residuals with linear bottlenecks.

Levels: 24, 32, 96 and 1280 channels at strides 4, 8, 16 and 32, the last one after the last convolution; anchors and
pooling levels are those of `fpn_r50`.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_mobilenet_v2",
        "model.backbone.name": "mobilenet_v2",
    }
)
