"""AlexNet (Krizhevsky, 2014, one column) with FPN: the first of the deep nets, and a fast and coarse one.

Levels: 64, 192 and 256 channels at strides 4, 8 and 16. Three levels, so the RPN sees four with its extra one: their
anchors, of 12, 28, 60 and 128 px, span what the five of `fpn_r50` do. It has no norm, and starts from Kaiming
fan-out.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_alexnet",
        "model.backbone.name": "alexnet",
        "model.rpn.anchor_sizes": (12, 28, 60, 128),
    }
)
