"""MobileNet V1: as `cls/mobilenet_v2`, with milder crops.

Howard et al., MobileNets (2017), section 3.2: RMSProp as for Inception V3, but no side heads, no label smoothing and
less distorted crops, as small nets overfit less. It states no numbers; those of V2 serve.
"""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/mobilenet_v2", kind=ClassifierConfig).replace(
    {
        "name": "cls_mobilenet_v1",
        "model.backbone.name": "mobilenet_v1",
        "model.pixel_mean": (127.5, 127.5, 127.5),
        "model.pixel_std": (127.5, 127.5, 127.5),
        "data.crop_scale": (0.35, 1.0),
        "data.colour": 0.0,
    }
)
