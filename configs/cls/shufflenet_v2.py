"""ShuffleNet V2: as `cls/shufflenet_v1`, whose settings Ma et al. (2018), section 4, take over."""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/shufflenet_v1", kind=ClassifierConfig).replace(
    {
        "name": "cls_shufflenet_v2",
        "model.backbone.name": "shufflenet_v2",
    }
)
