"""The schema of a config: what may be set, of which type, in which range.

A config file is Python that ends in `config = Config(...)`. A variant loads its base and changes some keys:

    config = load_config("coco/fpn_r50_1x").replace({"train.epochs": 36})

Keys are written with dots everywhere (`train.epochs`): in `replace`, on the command line and in messages.
"""

from detkit.config.classifier import (
    ClassifierConfig,
    ClassifierModelConfig,
    ClassifierTrainConfig,
    FolderConfig,
)
from detkit.config.data import DataConfig
from detkit.config.files import config_names, detector_config_name, load_config
from detkit.config.keys import parse_overrides
from detkit.config.model import BackboneConfig, ModelConfig, NeckConfig, RoIHeadConfig, RPNConfig
from detkit.config.runs import Config, RunConfig, config_from_dict
from detkit.config.train import TrainConfig

__all__ = [
    "BackboneConfig",
    "ClassifierConfig",
    "ClassifierModelConfig",
    "ClassifierTrainConfig",
    "Config",
    "DataConfig",
    "FolderConfig",
    "ModelConfig",
    "NeckConfig",
    "RPNConfig",
    "RoIHeadConfig",
    "RunConfig",
    "TrainConfig",
    "config_from_dict",
    "config_names",
    "detector_config_name",
    "load_config",
    "parse_overrides",
]
