"""ResNet-50 with FPN for small pictures and small machines: trains on Shapes from random weights.

Anchors from 12 px, and pooling levels split at 40, 80 and 160 px instead of 112, 224 and 448 (`canonical_size`).
For pictures of other sizes and pretrained weights see `coco/fpn_r50_1x`.
"""

from detkit.config import Config, DataConfig, ModelConfig, NeckConfig, RoIHeadConfig, RPNConfig, TrainConfig

config = Config(
    name="fpn_r50",
    model=ModelConfig(
        neck=NeckConfig(out_channels=96),
        rpn=RPNConfig(
            anchor_sizes=(12, 24, 48, 96, 128),
            samples=64,
            pre_nms_train=200,
            post_nms_train=200,
            pre_nms_test=300,
            post_nms_test=300,
        ),
        roi_head=RoIHeadConfig(samples=64, canonical_size=80, width=512),
        size_multiple=8,
    ),
    data=DataConfig(root="shapes", train_scales=(0.6, 0.8)),
    train=TrainConfig(
        epochs=16,
        batch_size=8,
        optimizer="adamw",
        lr=1.4e-3,
        weight_decay=0.05,
        schedule="cosine",
        warmup_steps=60,
        warmup_factor=0.01,
        clip_norm=1.0,
        ema_decay=0.99,
        eval_every=8,
        save_every=4,
    ),
)
