"""ResNet: the contract of backbones, torchvision's names and numbers, frozen stages, norms."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from detkit.backbones.resnet import ResNet, ResNetClassifier
from tests.reference import assert_same, outputs_at, randomise_norms, real_batch

CHANNELS = {18: (64, 128, 256, 512), 50: (256, 512, 1024, 2048)}
THEIRS: dict[int, Callable[..., nn.Module]] = {
    18: torchvision.models.resnet18,
    50: torchvision.models.resnet50,
}


def their_levels(model: nn.Module, images: Tensor) -> list[Tensor]:
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    levels = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = stage(x)
        levels.append(x)
    return levels


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("train", [True, False])
def test_contract(depth: int, train: bool) -> None:
    model = ResNet(depth).train(train)
    assert model.channels == CHANNELS[depth]
    assert model.strides == (4, 8, 16, 32)
    for height, width in ((33, 47), (64, 96)):
        levels = model(torch.randn(2, 3, height, width))
        for level, channels, stride in zip(levels, model.channels, model.strides, strict=True):
            assert level.shape == (2, channels, math.ceil(height / stride), math.ceil(width / stride))


@pytest.mark.parametrize("depth", [18, 50])
def test_names_shapes_and_activations_are_torchvisions(depth: int) -> None:
    torch.manual_seed(0)
    theirs = THEIRS[depth](weights=None).eval()
    randomise_norms(theirs)
    ours = ResNet(depth).eval()
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    ours.load_state_dict(state, strict=True)
    assert list(ours.state_dict()) == list(state)
    images = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        for got, expected in zip(ours(images), their_levels(theirs, images), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_the_classifier_gives_torchvisions_logits(depth: int, real_data: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(f"resnet{depth}", weights=None).eval()
    randomise_norms(theirs)
    ours = ResNetClassifier(depth).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = real_batch(real_data)
    logits, taps = outputs_at(theirs, ("layer1", "layer2", "layer3", "layer4"), images)
    with torch.no_grad():
        assert_same(ours(images), logits)
        for level, tap in zip(ResNet.forward(ours, images), taps, strict=True):
            assert_same(level, tap)


def test_the_stride_is_in_the_3x3_or_in_the_first_1x1() -> None:
    for in_first, expected in ((False, [(1, 1), (2, 2)]), (True, [(2, 2), (1, 1)])):
        model = ResNet(50, stride_in_1x1=in_first)
        for stage in (model.layer2, model.layer3, model.layer4):
            assert [stage[0].conv1.stride, stage[0].conv2.stride] == expected
            assert stage[0].downsample[0].stride == (2, 2)
            assert [stage[1].conv1.stride, stage[1].conv2.stride] == [(1, 1), (1, 1)]
        assert model.layer1[0].conv1.stride == (1, 1)
        assert [level.shape[-1] for level in model(torch.randn(1, 3, 64, 33))] == [9, 5, 3, 2]


@pytest.mark.parametrize("stages", [0, 1, 2, 5])
def test_frozen_stages_keep_weights_and_statistics(stages: int) -> None:
    torch.manual_seed(0)
    model = ResNet(18, frozen_stages=stages)
    model.train()
    frozen = ["conv1.", "bn1."][: 2 * stages] + [f"layer{i}." for i in range(1, stages)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    levels = model(torch.randn(2, 3, 33, 33))
    if stages < 5:
        torch.stack([level.sum() for level in levels]).sum().backward()
    assert levels[-1].requires_grad == (stages < 5)
    for name, parameter in model.named_parameters():
        is_frozen = name.startswith(tuple(frozen))
        assert parameter.requires_grad != is_frozen, name
        assert (parameter.grad is None) == is_frozen, name
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(value, before[name]) == name.startswith(tuple(frozen)), name


@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        ("batch", nn.BatchNorm2d),
        ("frozen", FrozenBatchNorm2d),
        ("group", nn.GroupNorm),
        ("sync", nn.SyncBatchNorm),
        ("none", nn.Identity),
    ],
)
def test_norms(norm: str, kind: type[nn.Module]) -> None:
    model = ResNet(18, norm=norm).eval()
    assert isinstance(model.bn1, kind)
    # the stem, 16 in the blocks, 3 in the shortcuts
    assert sum(isinstance(module, kind) for module in model.modules()) == 20
    assert all(level.isfinite().all() for level in model(torch.randn(1, 3, 64, 64)))


def test_frozen_norm_reads_the_weights_of_batch_norm() -> None:
    batch, frozen = ResNet(18).eval(), ResNet(18, norm="frozen")
    randomise_norms(batch)
    frozen.load_state_dict(batch.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(frozen.train()(images)[-1], batch(images)[-1], atol=1e-4, rtol=1e-4)


def test_an_unknown_depth_or_norm_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="18, 34, 50, 101, 152 layers, got 42"):
        ResNet(42)
    with pytest.raises(ValueError, match="batch, frozen, group, sync, none, got 'layer'"):
        ResNet(18, norm="layer")
