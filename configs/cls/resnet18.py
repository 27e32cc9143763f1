"""ResNet-18: as `cls/resnet50` (He et al., 2015, section 3.4)."""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/resnet50", kind=ClassifierConfig).replace(
    {
        "name": "cls_resnet18",
        "model.backbone.name": "resnet18",
    }
)
