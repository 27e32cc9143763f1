"""SqueezeNet 1.1: as `cls/squeezenet1_0`; its authors publish the same solver for it."""

from detkit.classifier_config import ClassifierConfig
from detkit.config import load_config

config = load_config("cls/squeezenet1_0", kind=ClassifierConfig).replace(
    {
        "name": "cls_squeezenet1_1",
        "model.backbone.name": "squeezenet1_1",
    }
)
