"""Faster R-CNN with FPN as published (Lin et al., 2017, section 5): ResNet-50, 12 epochs of COCO train2017.

2,000 proposals, 512 RoIs a picture, width 256, head 1,024; SGD 0.02 for 16 pictures; the stem, the first stage and
all batch norm frozen; 800 px on the short side, at most 1,333 on the long one. Point data.root at a folder with
annotations/, train2017/ and val2017/.
"""

from detkit.config import BackboneConfig, Config, DataConfig, ModelConfig, RPNConfig, TrainConfig

config = Config(
    name="fpn_r50_1x",
    model=ModelConfig(
        backbone=BackboneConfig(weights="imagenet", norm="frozen", frozen_stages=2),
        rpn=RPNConfig(pre_nms_train=2000, post_nms_train=2000, pre_nms_test=1000, post_nms_test=1000),
    ),
    data=DataConfig(root="data/coco", on_bad="drop", keep_empty=False, short_side=800, workers=4),
    train=TrainConfig(epochs=12, batch_size=16, milestones=(8 / 12, 11 / 12)),
)
