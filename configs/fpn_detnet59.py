"""DetNet-59 (Li et al., 2018) with FPN: a backbone for detection, whose last stages keep stride 16 by dilation.

Levels: 256, 512, 1024, 1024 and 1024 channels at strides 4, 8, 16, 16 and 16. They are five, as many as `fpn_r50` has
with its extra one, so there is none here, and the anchors, one size a level by its index, are the same. The published
recipe is `coco/fpn_detnet59`.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_detnet59",
        "model.backbone.name": "detnet59",
        "model.neck.extra_level": "none",
    }
)
