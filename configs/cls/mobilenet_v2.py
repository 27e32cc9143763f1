"""MobileNet V2 (Sandler et al., 2018, section 6.1).

RMSProp with decay 0.9 and momentum 0.9, weight decay 4e-5, rate 0.045 for 96 pictures a step (0.0075 for 16), times
0.98 an epoch. The paper states neither eps, nor the length, nor an average of the weights: 1.0, as for Inception, 300
epochs and 0.9999 are ours.
"""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/resnet50", kind=ClassifierConfig).replace(
    {
        "name": "cls_mobilenet_v2",
        "model.backbone.name": "mobilenet_v2",
        "data.crop": "area",
        "data.colour": 0.5,
        "train.epochs": 300,
        "train.batch_size": 96,
        "train.optimizer": "rmsprop",
        "train.lr": 0.045 * 16 / 96,
        "train.alpha": 0.9,
        "train.eps": 1.0,
        "train.weight_decay": 4e-5,
        "train.schedule": "exponential",
        "train.gamma": 0.98,
        "train.decay_epochs": 1,
        "train.ema_decay": 0.9999,
    }
)
