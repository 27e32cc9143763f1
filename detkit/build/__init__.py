"""The only place where a config becomes objects."""

from detkit.build.data import (
    TrainingData,
    build_data,
    build_train_loader,
    build_val_data,
    build_val_loader,
)
from detkit.build.models import backbone_options, build_backbone, build_classifier, build_detector
from detkit.build.training import build_trainer, choose_device, choose_precision

__all__ = [
    "TrainingData",
    "backbone_options",
    "build_backbone",
    "build_classifier",
    "build_data",
    "build_detector",
    "build_train_loader",
    "build_trainer",
    "build_val_data",
    "build_val_loader",
    "choose_device",
    "choose_precision",
]
