"""The contract that every entry of BACKBONES keeps."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit.backbones import BACKBONES, CLASSIFIERS
from detkit.backbones.base import Backbone, PairPool
from detkit.norm import fold_norm
from tests.reference import randomise_norms

# One of each family and of each way to be built; the deeper ones differ in numbers of blocks only.
NAMES = sorted(BACKBONES)
DEEP = {"resnet101", "resnet152", "densenet169", "densenet201"}
QUICK = [name for name in NAMES if name not in DEEP]


def build(name: str, **options: Any) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES[name](**options)


def picture(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_each_backbone_has_its_classifier() -> None:
    assert BACKBONES.keys() == CLASSIFIERS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_levels_are_as_declared(name: str) -> None:
    model = build(name)
    assert len(model.channels) == len(model.strides)
    assert list(model.strides) == sorted(model.strides)
    for train, batch, size in ((True, 1, (33, 47)), (False, 2, (64, 96)), (False, 1, (75, 61))):
        with torch.no_grad():
            levels = model.train(train)(picture(batch, *size))
        for level, channels, stride in zip(levels, model.channels, model.strides, strict=True):
            assert level.shape == (batch, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
            assert level.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = build(name).train()
    randomise_norms(model)
    sum(level.square().mean() for level in model(picture(2, 64, 64))).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    assert [key for key, parameter in model.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("train", [True, False])
def test_channels_last_in_gives_channels_last_out(name: str, train: bool) -> None:
    model = build(name).to(memory_format=torch.channels_last).train(train)
    images = picture(2, 64, 96).contiguous(memory_format=torch.channels_last)
    for level in model(images):
        assert level.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NAMES)
def test_small_pictures_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="at least 33 x 33 px, got 47 x 32"):
        build(name)(torch.zeros(1, 3, 32, 47))


@pytest.mark.parametrize("name", QUICK)
def test_a_dot_peaks_in_the_cell_that_the_stride_says(name: str) -> None:
    model = build(name).eval()
    make_uniform(model)
    for stride in sorted(set(model.strides)):
        row, column = 160 // stride, 192 // stride
        images = torch.zeros(1, 3, 320, 352)
        images[..., row * stride, column * stride] = 1.0
        with torch.no_grad():
            levels = model(images)
        for level, own in zip(levels, model.strides, strict=True):
            if own == stride:
                total = level[0].double().sum(0)
                assert divmod(int(total.argmax()), total.shape[1]) == (row, column), f"stride {stride}"


def make_uniform(model: nn.Module) -> None:
    """All weights of a layer equal and positive, norms the identity: what comes out is a blurred picture."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1.0 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


@pytest.mark.parametrize("name", QUICK)
def test_folding_the_norm_changes_nothing(name: str) -> None:
    model = build(name).eval()
    randomise_norms(model)
    images = picture(1, 64, 96)
    with torch.no_grad():
        for folded, level in zip(fold_norm(model)(images), model(images), strict=True):
            assert torch.allclose(folded, level, rtol=1e-3, atol=1e-4 * float(level.abs().max()))


@pytest.mark.parametrize("name", QUICK)
def test_frozen_stages_do_not_train(name: str) -> None:
    stages = len(build(name).stages())
    for count in (1, stages):
        model = build(name, frozen_stages=count).train()
        for number, stage in enumerate(model.stages()):
            for layer in stage:
                assert all(parameter.requires_grad == (number >= count) for parameter in layer.parameters())
                with_weights = [part for part in layer.modules() if list(part.parameters(recurse=False))]
                assert all(part.training == (number >= count) for part in with_weights)
    with pytest.raises(ValueError, match=f"has {stages} stages"):
        build(name, frozen_stages=stages + 1)


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pair_pool_takes_early_or_late_pairs(kind: Any) -> None:
    x = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0]]).expand(5, 5)[None, None]
    late, early = PairPool(kind, "late")(x)[0, 0, 0], PairPool(kind, "early")(x)[0, 0, 0]
    # pairs (0, 1), (2, 3), (4) and (0), (1, 2), (3, 4)
    assert late.tolist() == ([2, 8, 16] if kind == "max" else [1.5, 6, 16])
    assert early.tolist() == ([1, 4, 16] if kind == "max" else [1, 3, 12])
