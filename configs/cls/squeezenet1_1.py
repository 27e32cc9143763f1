"""SqueezeNet 1.1: as `cls/squeezenet1_0`; its authors publish the same solver for it."""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/squeezenet1_0", kind=ClassifierConfig).replace(
    {
        "name": "cls_squeezenet1_1",
        "model.backbone.name": "squeezenet1_1",
    }
)
