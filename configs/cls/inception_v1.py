"""GoogLeNet (Szegedy et al., Going Deeper with Convolutions, 2015, sections 5 and 6).

SGD with momentum 0.9, the rate lowered by 4 % every 8 epochs, the average of the weights over time kept; crops of 8 to
100 % of the area with ratios of 3/4 to 4/3, colours changed; auxiliary losses times 0.3 and dropout in the net. The
paper states neither rate nor length: 0.01 for 32 pictures (0.005 for 16), weight decay 2e-4 and 250 epochs are those of
the model that BVLC published with Caffe. `model.backbone.norm=none` is the net of the paper, without batch norm.
"""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/resnet50", kind=ClassifierConfig).replace(
    {
        "name": "cls_inception_v1",
        "model.backbone.name": "inception_v1",
        "model.pixel_mean": (127.5, 127.5, 127.5),
        "model.pixel_std": (127.5, 127.5, 127.5),
        "data.crop": "area",
        "data.colour": 0.5,
        "train.epochs": 250,
        "train.batch_size": 32,
        "train.lr": 0.01 * 16 / 32,
        "train.weight_decay": 2e-4,
        "train.schedule": "exponential",
        "train.gamma": 0.96,
        "train.decay_epochs": 8,
        "train.ema_decay": 0.9999,
    }
)
