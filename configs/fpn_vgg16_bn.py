"""VGG-16 with batch norm with FPN: `fpn_vgg16` with a norm after each convolution.

Levels: 256, 512, 512 and 512 channels at strides 4, 8, 16 and 32; anchors and pooling levels are those of `fpn_r50`.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_vgg16_bn",
        "model.backbone.name": "vgg16_bn",
    }
)
