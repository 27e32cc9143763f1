"""ShuffleNet V2 (Ma et al., 2018) with FPN: a split and a shuffle of channels, built to be fast in fact.

The levels are the last places of strides 4, 8, 16 and 32; anchors and pooling levels are those of `fpn_r50`.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_shufflenet_v2",
        "model.backbone.name": "shufflenet_v2",
    }
)
