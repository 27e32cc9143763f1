"""DenseNet-201: as `cls/densenet121` (Huang et al., 2017, section 4.2)."""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/densenet121", kind=ClassifierConfig).replace(
    {
        "name": "cls_densenet201",
        "model.backbone.name": "densenet201",
    }
)
