"""Inception V2: as `cls/inception_v3`.

Szegedy et al., Rethinking the Inception Architecture (2015), table 3, add RMSProp and label smoothing to this net.
"""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/inception_v3", kind=ClassifierConfig).replace(
    {
        "name": "cls_inception_v2",
        "model.backbone.name": "inception_v2",
    }
)
