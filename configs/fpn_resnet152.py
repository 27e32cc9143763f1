"""ResNet-152 (He et al., 2015) with FPN: ResNet-50 with 8 blocks at stride 8 and 36 at stride 16.

Levels: 256, 512, 1024 and 2048 channels at strides 4, 8, 16 and 32; anchors and pooling levels are those of
`fpn_r50`.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_resnet152",
        "model.backbone.name": "resnet152",
    }
)
