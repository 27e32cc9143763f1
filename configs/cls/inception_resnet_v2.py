"""Inception-ResNet V2 (Szegedy et al., Inception-v4, 2016, section 4).

RMSProp with decay 0.9 and eps 1.0, rate 0.045, times 0.94 every two epochs, the average of the weights over time. The
rest as `cls/inception_v3`, whose rate is for 32 pictures. The paper states no length: 160 epochs are ours.
"""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/inception_v3", kind=ClassifierConfig).replace(
    {
        "name": "cls_inception_resnet_v2",
        "model.backbone.name": "inception_resnet_v2",
        "train.epochs": 160,
    }
)
