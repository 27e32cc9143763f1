"""VGG-16 with batch norm: as `cls/vgg16`; the paper has none."""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/vgg16", kind=ClassifierConfig).replace(
    {
        "name": "cls_vgg16_bn",
        "model.backbone.name": "vgg16_bn",
    }
)
