"""DetNet-59 with FPN as published (Li et al., DetNet, 2018, arXiv 1804.06215, section 4.1): COCO train2017.

180,000 iterations of 16 pictures (24.6 epochs); SGD 0.02, a tenth of it from 120,000 and a hundredth from 160,000 on,
starting at 0.3 of it for 500; stage 1, which is the stem, and all batch norm frozen; 800 px on the short side, at most
1,333 on the long one; horizontal flips only. The recipe needs ImageNet weights, and nobody publishes those of
this layout: pretrain with `detkit train-cls cls/detnet59`, then give model.backbone.weights=PATH and data.root.

Proposals: the paper takes the 12,000 with the highest scores, in training 2,000 of them after NMS, 6,000 and 1,000 at
test. It does not say whether of all levels or of each; `pre_nms_*` counts those of a level, `post_nms_*` those of the
picture. 12,000 a level include the 12,000 best of all levels. NMS runs level by level and keeps the best, so the
result is the same, unless those 12,000 leave fewer than 2,000; then the next best fill up.
"""

from detkit.config import load_config

config = load_config("coco/fpn_r50_1x").replace(
    {
        "name": "fpn_detnet59",
        "model.backbone.name": "detnet59",
        "model.backbone.weights": None,
        "model.backbone.frozen_stages": 1,
        "model.neck.extra_level": "none",  # five levels already
        "model.rpn.pre_nms_train": 12000,
        "model.rpn.post_nms_train": 2000,
        "model.rpn.pre_nms_test": 6000,
        "model.rpn.post_nms_test": 1000,
        "train.iterations": 180_000,
        "train.milestones": (120 / 180, 160 / 180),
        "train.warmup_factor": 0.3,
    }
)
