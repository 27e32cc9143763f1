"""Where pretrained weights come from, and what is said where they do not come."""

import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torchvision.models import get_model_weights

from detkit.backbones import BACKBONES
from detkit.build import build_backbone, build_classifier
from detkit.pretrained import TIMM_NAMES, TORCHVISION, TORCHVISION_NAMES, backbone_state, source_of


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_publishes_what_is_promised(name: str) -> None:
    weights = get_model_weights(TORCHVISION_NAMES.get(name, name))["IMAGENET1K_V1"]
    assert weights.url.startswith("https://download.pytorch.org/")
    assert name in BACKBONES


def test_timm_publishes_what_is_promised() -> None:
    import timm

    assert timm.list_models(pretrained=True) and set(TIMM_NAMES.values()) <= {
        name.split(".")[0] for name in timm.list_models(pretrained=True)
    }


def test_each_backbone_says_where_its_weights_come_from() -> None:
    assert source_of("resnet50") == "imagenet (torchvision)"
    assert source_of("mobilenet_v1") == "imagenet (timm)"
    assert source_of("efficientnet_lite0") == "pip:efficientnet-lite0, imagenet (timm)"
    assert {name for name in BACKBONES if source_of(name) is None} == {"detnet59", "inception_v2", "shufflenet_v1"}


def test_densenets_are_read_under_their_old_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torchvision.models.densenet121(weights=None).state_dict()
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value for key, value in state.items()}
    assert any(".norm.1." in key for key in old)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(old, folder / get_model_weights("densenet121")["IMAGENET1K_V1"].url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert backbone_state("densenet121", "imagenet").keys() == state.keys()


@pytest.mark.parametrize("name", ["detnet59", "shufflenet_v1"])
def test_nobody_publishes_these(name: str) -> None:
    with pytest.raises(ValueError, match=rf"nobody publishes ImageNet weights for {name}; pretrain it with"):
        build_backbone(name, weights="imagenet")


@pytest.mark.parametrize(
    ("typed", "meant"), [("imagnet", "imagenet"), ("pip:efficientnet_lite0", "pip:efficientnet-lite0")]
)
def test_a_misspelt_source_is_guessed(typed: str, meant: str) -> None:
    with pytest.raises(ValueError, match=meant):
        backbone_state("resnet18", typed)


def test_a_missing_timm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"pip install 'detkit\[timm\]'"):
        backbone_state("mobilenet_v1", "imagenet")


def test_unknown_backbones_and_options_name_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet5': did you mean resnet50\?.*detnet59.*timm/NAME"):
        build_backbone("resnet5")
    with pytest.raises(ValueError, match=r"the backbone resnet50 has no option 'groups'.*it has: none"):
        build_backbone("resnet50", groups=2)
    with pytest.raises(ValueError, match="inception_v1 has no option 'aux'"):
        build_backbone("inception_v1", aux=False)
    assert build_classifier("inception_v1", aux=False).aux1 is None
    with pytest.raises(ValueError, match="unknown backbone 'x'"):
        build_classifier("x")
    with pytest.raises(
        ValueError, match=r"the option padding of the backbone resnet18.*'centred' or 'reference', got 'valid'"
    ):
        build_backbone("resnet18", padding="valid")


def test_options_reach_the_net() -> None:
    assert build_backbone("resnet50", stride_in_1x1=True).layer2[0].conv1.stride == (2, 2)
    assert build_classifier("resnet18", num_classes=7, norm="group").fc.out_features == 7
