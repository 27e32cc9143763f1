"""`coco/fpn_r50_1x` for three times as long, with short sides of 640 to 800 px in training."""

from detkit.config import load_config

config = load_config("coco/fpn_r50_1x").replace(
    {
        "name": "fpn_r50_3x",
        "train.epochs": 36,
        "train.milestones": (28 / 36, 34 / 36),
        "data.train_scales": (0.8, 0.84, 0.88, 0.92, 0.96, 1.0),
    }
)
