"""A config for each backbone: it names that backbone, its anchors fit the levels, and it builds; DetNet's recipe."""

import pytest
import torch

from detkit.backbones import BACKBONES
from detkit.build import build_detector
from detkit.config import ClassifierConfig, config_names, detector_config_name, load_config

DETECTORS = [name for name in config_names() if not name.startswith("cls/")]


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_each_backbone_has_its_config(backbone: str) -> None:
    name = detector_config_name(backbone)
    assert name in config_names(), f"the backbone {backbone} has no config configs/{name}.py"
    config = load_config(name)
    assert config.model.backbone.name == backbone
    assert config.name == name


def test_each_config_has_its_backbone() -> None:
    wanted = {detector_config_name(backbone) for backbone in BACKBONES}
    assert {name for name in DETECTORS if name.startswith("fpn_")} == wanted


@pytest.mark.parametrize("name", DETECTORS)
def test_every_config_builds_and_has_an_anchor_size_for_each_level(name: str) -> None:
    model = load_config(name).model
    with torch.device("meta"):
        detector = build_detector(model, num_classes=3, pretrained=False)
    strides = detector.neck.strides
    assert detector.rpn.anchors.strides == strides
    assert model.rpn.anchor_sizes is None or len(model.rpn.anchor_sizes) == len(strides)
    assert len(detector.roi_head.pooler.strides) == len(detector.backbone.strides)


def test_the_recipe_of_detnet() -> None:
    config = load_config("coco/fpn_detnet59")
    train, rpn = config.train, config.model.rpn
    assert (train.lr, train.batch_size, train.iterations) == (0.02, 16, 180_000)
    assert [round(share * train.iterations) for share in train.milestones] == [120_000, 160_000]
    assert (config.data.short_side, config.data.long_side) == (800, 1333)
    assert (rpn.pre_nms_train, rpn.post_nms_train, rpn.pre_nms_test, rpn.post_nms_test) == (12000, 2000, 6000, 1000)
    with torch.device("meta"):
        detector = build_detector(config.model, num_classes=80, pretrained=False)
    trained = {name for name, parameter in detector.backbone.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("conv1.") or ".bn" in name for name in trained)
    assert "layer1.0.conv1.weight" in trained
    assert detector.neck.strides == (4, 8, 16, 16, 16)


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_a_net_sees_the_same_pixels_in_pretraining_and_in_the_detector(backbone: str) -> None:
    classifier = load_config(f"cls/{backbone}", kind=ClassifierConfig).model
    detector = load_config(detector_config_name(backbone)).model
    assert (classifier.pixel_mean, classifier.pixel_std) == (detector.pixel_mean, detector.pixel_std)
    assert classifier.backbone.options == detector.backbone.options
