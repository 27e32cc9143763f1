"""ResNet-34 (He et al., 2015) with FPN: basic blocks, as deep as ResNet-50 has blocks.

Levels: 64, 128, 256 and 512 channels at strides 4, 8, 16 and 32; anchors and pooling levels are those of `fpn_r50`.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_resnet34",
        "model.backbone.name": "resnet34",
    }
)
