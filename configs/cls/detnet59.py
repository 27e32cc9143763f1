"""DetNet-59 (Li et al., DetNet, 2018) as a classifier, by the recipe of ResNet: as `cls/resnet50`."""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/resnet50", kind=ClassifierConfig).replace(
    {
        "name": "cls_detnet59",
        "model.backbone.name": "detnet59",
    }
)
