"""SqueezeNet 1.0 (Iandola et al., 2016) with FPN: fire modules, 0.7 M parameters.

Levels: the last places of strides 4, 8 and 16. Three levels, so the RPN sees four with its extra one: their anchors,
of 12, 28, 60 and 128 px, span what the five of `fpn_r50` do. It has no norm, and starts from Kaiming fan-out.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_squeezenet1_0",
        "model.backbone.name": "squeezenet1_0",
        "model.rpn.anchor_sizes": (12, 28, 60, 128),
    }
)
