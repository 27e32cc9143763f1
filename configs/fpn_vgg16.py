"""VGG-16 (Simonyan and Zisserman, 2015) with FPN: plain 3x3 convolutions, 15 G multiply-adds at 224 px.

Levels: 256, 512, 512 and 512 channels at strides 4, 8, 16 and 32; anchors and pooling levels are those of `fpn_r50`.
It has no norm, and starts from Kaiming fan-out. With batch norm it trains faster: `fpn_vgg16_bn`.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_vgg16",
        "model.backbone.name": "vgg16",
    }
)
