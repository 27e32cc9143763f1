"""ShuffleNet V1 (Zhang et al., 2017, section 4).

SGD 0.5 for 1,024 pictures a step, falling linearly to 0 in 300,000 steps, which are 240 epochs; weight decay 4e-5, and
milder changes of scale, as small nets underfit. 0.5 for 1,024 is 0.0078125 for 16.
"""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/resnet50", kind=ClassifierConfig).replace(
    {
        "name": "cls_shufflenet_v1",
        "model.backbone.name": "shufflenet_v1",
        "data.crop": "area",
        "data.crop_scale": (0.35, 1.0),
        "train.epochs": 240,
        "train.batch_size": 1024,
        "train.lr": 0.5 * 16 / 1024,
        "train.weight_decay": 4e-5,
        "train.schedule": "linear",
    }
)
