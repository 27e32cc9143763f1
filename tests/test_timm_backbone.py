"""Models of timm as backbones: levels, cells, norms, and what is said of names that do not fit."""

import math
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from detkit.backbones.timm import build_timm
from detkit.build import build_backbone, build_detector
from detkit.config import Config
from detkit.norm import fold_norm
from detkit.weights import LoadReport
from tests.reference import assert_same, randomise_norms

# A ResNet, patches that round down, inverted residuals, and windows of attention with channels last.
NAMES = ("resnet10t", "convnext_atto", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224")


@pytest.mark.parametrize("name", NAMES)
def test_levels_are_as_declared(name: str) -> None:
    model = build_backbone(f"timm/{name}").eval()
    assert model.strides == (4, 8, 16, 32)
    for height, width in ((33, 47), (75, 61)):
        images = torch.randn(1, 3, height, width).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            levels = model(images)
        for level, channels, stride in zip(levels, model.channels, model.strides, strict=True):
            assert level.shape == (1, channels, math.ceil(height / stride), math.ceil(width / stride))
            assert level.is_contiguous(memory_format=torch.channels_last)


def test_levels_are_timms_own() -> None:
    torch.manual_seed(0)
    model = build_backbone("timm/resnet10t").eval()
    randomise_norms(model)
    theirs = timm.create_model("resnet10t", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    theirs.load_state_dict(model.body.state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for ours, level in zip(model(images), theirs(images), strict=True):
            assert_same(ours, level, 1e-6)


def test_channels_that_come_last_are_turned() -> None:
    torch.manual_seed(0)
    model = build_timm("swin_tiny_patch4_window7_224").eval()
    theirs = timm.create_model("swin_tiny_patch4_window7_224", features_only=True, dynamic_img_size=True).eval()
    theirs.load_state_dict(model.body.state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for ours, level in zip(model(images), theirs(images), strict=True):
            assert torch.equal(ours, level.permute(0, 3, 1, 2))


def test_what_rounds_down_is_padded_and_cut() -> None:
    torch.manual_seed(0)
    model = build_timm("convnext_atto").eval()
    assert model.multiple == 32
    images = torch.randn(1, 3, 33, 47)
    padded = torch.zeros(1, 3, 64, 64)
    padded[..., :33, :47] = images
    with torch.no_grad():
        for ours, level in zip(model(images), model(padded), strict=True):
            assert torch.equal(ours, level[..., : ours.shape[2], : ours.shape[3]])
    assert build_timm("resnet10t").multiple == 1


def test_a_plain_transformer_is_one_level_of_any_size() -> None:
    model = build_timm("vit_tiny_patch16_224").train()
    assert (model.channels, model.strides) == ((192,), (16,))
    (level,) = model(torch.randn(1, 3, 40, 70))
    assert level.shape == (1, 192, 3, 5)
    level.square().mean().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


def test_gradients_reach_every_parameter() -> None:
    model = build_timm("mobilenetv3_small_050").train()
    sum(level.square().mean() for level in model(torch.randn(2, 3, 64, 64))).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mixer_s32_224", r"does not take pictures of any size \(Input height \(33\) doesn't match model"),
        # valid convolutions
        ("inception_v3", "does not take pictures of any size"),
        # scales its pictures to 240 px
        ("crossvit_9_240", r"its levels are \[\(128, 20, 20\), \(256, 14, 14\)\] instead of"),
        ("resnet10t.nonsense", r"gives no feature levels: Invalid pretrained tag \(nonsense\)"),
    ],
)
def test_models_that_are_no_backbones_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"timm/{name}.*{reason}"):
        build_timm(name)


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_names_of_the_whole_model_are_found(name: str) -> None:
    """timm flattens the first, wraps the second and leaves the third as it is."""
    state = timm.create_model(name).state_dict()
    model = build_timm(name)
    named = model.own_names(state)
    assert model.own_names(named).keys() == named.keys()
    assert model.body.load_state_dict(named, strict=False).missing_keys == []
    assert len(named) == len(state)


def test_frozen_norms_keep_statistics_and_numbers() -> None:
    plain = build_timm("mobilenetv3_small_050").eval()
    randomise_norms(plain)
    frozen = build_timm("mobilenetv3_small_050", norm="frozen")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    assert any("FrozenBatchNorm" in type(module).__name__ for module in frozen.modules())
    frozen.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, level in zip(frozen.train()(images), plain(images), strict=True):
            assert_same(ours, level, 1e-4)


def test_folding_leaves_timms_layers_alone() -> None:
    """Its norms hold activations, which a fold would drop."""
    model = build_timm("mobilenetv3_small_050").eval()
    randomise_norms(model)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for folded, level in zip(fold_norm(model)(images), model(images), strict=True):
            assert torch.equal(folded, level)


def test_it_is_a_detectors_backbone() -> None:
    config = Config().replace({"model.backbone.name": "timm/resnet10t", "model.roi_head.width": 16})
    model = build_detector(config.model, 3)
    losses = model([torch.zeros(3, 64, 96)], [{"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([1])}])
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_weights_of_a_file(tmp_path: Path, name: str) -> None:
    theirs = timm.create_model(name)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    reports: list[LoadReport] = []
    model = build_backbone(f"timm/{name}", weights=str(tmp_path / "w.pth"), on_loaded=reports.append)
    assert not reports[0].missing
    own, state = model.body.state_dict(), theirs.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in model.own_names(state).items() if key in own)
    with pytest.raises(ValueError, match=r"w\.pth for timm/resnet18: only"):
        build_backbone("timm/resnet18", weights=str(tmp_path / "w.pth"))


def test_small_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 33 x 33 px"):
        build_timm("resnet10t")(torch.zeros(1, 3, 32, 64))


def test_unknown_names_come_with_near_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown backbone timm/resnet5O: did you mean .*timm/resnet50"):
        build_backbone("timm/resnet5O")


def test_what_cannot_be_says_why() -> None:
    with pytest.raises(ValueError, match="frozen_stages=2: timm/resnet10t has no stages"):
        build_backbone("timm/resnet10t", frozen_stages=2)
    with pytest.raises(ValueError, match="norm=group: timm/resnet10t can have batch or frozen alone"):
        build_backbone("timm/resnet10t", norm="group")
    with pytest.raises(ValueError, match=r"timm/resnet10t has no option 'groups'"):
        build_backbone("timm/resnet10t", groups=2)


def test_a_missing_timm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"pip install 'detkit\[timm\]'"):
        build_backbone("timm/resnet10t")


def test_weights_without_network_say_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot get the weights of timm/resnet10t.*model\.backbone\.weights=none"):
        build_backbone("timm/resnet10t", weights="imagenet")
