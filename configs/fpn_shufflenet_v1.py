"""ShuffleNet V1 (Zhang et al., 2018) with FPN: grouped pointwise convolutions and a shuffle of channels.

The levels are the last places of strides 4, 8, 16 and 32; anchors and pooling levels are those of `fpn_r50`.
model.backbone.options.groups sets the number of groups: 1, 2, 3, 4 or 8.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_shufflenet_v1",
        "model.backbone.name": "shufflenet_v1",
    }
)
