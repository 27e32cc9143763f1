"""The contract that every entry of BACKBONES keeps."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit.backbones import BACKBONES, CLASSIFIERS
from detkit.backbones.base import Backbone, PairPool
from detkit.norm import fold_norm
from tests.reference import randomise_norms


@pytest.fixture(scope="module", params=sorted(BACKBONES))
def net(request: pytest.FixtureRequest) -> Backbone:
    """A backbone as it is built; tests that change it take a copy."""
    torch.manual_seed(0)
    return BACKBONES[request.param]()


def picture(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_each_backbone_has_its_classifier() -> None:
    assert list(BACKBONES) == list(CLASSIFIERS)


def test_levels_are_as_declared(net: Backbone) -> None:
    assert len(net.channels) == len(net.strides)
    assert list(net.strides) == sorted(net.strides)
    for train, batch, size in ((True, 1, (33, 47)), (False, 2, (64, 96)), (False, 1, (75, 61))):
        with torch.no_grad():
            levels = copy.deepcopy(net).train(train)(picture(batch, *size))
        for level, channels, stride in zip(levels, net.channels, net.strides, strict=True):
            assert level.shape == (batch, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
            assert level.isfinite().all()


def test_gradients_reach_every_parameter(net: Backbone) -> None:
    model = copy.deepcopy(net).train()
    randomise_norms(model)
    sum(level.square().mean() for level in model(picture(2, 64, 64))).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    assert [key for key, parameter in model.named_parameters() if not parameter.grad.any()] == []


def test_channels_last_in_gives_channels_last_out(net: Backbone) -> None:
    model = copy.deepcopy(net).to(memory_format=torch.channels_last)
    images = picture(2, 64, 96).contiguous(memory_format=torch.channels_last)
    for train in (True, False):
        for level in model.train(train)(images):
            assert level.is_contiguous(memory_format=torch.channels_last)


def test_small_pictures_are_refused(net: Backbone) -> None:
    with pytest.raises(ValueError, match="at least 33 x 33 px, got 47 x 32"):
        net(torch.zeros(1, 3, 32, 47))


def test_a_dot_peaks_in_the_cell_that_the_stride_says(net: Backbone) -> None:
    model = copy.deepcopy(net).eval()
    make_uniform(model)
    for stride in sorted(set(model.strides)):
        row, column = 128 // stride, 160 // stride
        images = torch.zeros(1, 3, 256, 288)
        images[..., row * stride, column * stride] = 1.0
        with torch.no_grad():
            levels = model(images)
        for level, own in zip(levels, model.strides, strict=True):
            if own == stride:
                assert peak(level[0].double().sum(0)) == (row, column), f"stride {stride}"


def peak(cells: Tensor) -> tuple[float, float]:
    """Row and column of the largest value, or the middle of a plateau: one wide uniform window gives several."""
    rows, columns = torch.where(cells >= cells.max() * (1 - 1e-6))
    return float(rows.double().mean()), float(columns.double().mean())


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


def test_folding_the_norm_changes_nothing(net: Backbone) -> None:
    model = copy.deepcopy(net).eval()
    randomise_norms(model)
    images = picture(1, 64, 96)
    with torch.no_grad():
        for folded, level in zip(fold_norm(model)(images), model(images), strict=True):
            assert torch.allclose(folded, level, rtol=1e-3, atol=1e-4 * float(level.abs().max()))


@pytest.mark.parametrize("name", BACKBONES)
def test_frozen_stages_do_not_train(name: str) -> None:
    with torch.device("meta"):
        model = BACKBONES[name](frozen_stages=1)
        stages = len(model.stages())
        for count in (1, stages):
            model.freeze(count)
            model.train()
            for number, stage in enumerate(model.stages()):
                for layer in stage:
                    assert all(parameter.requires_grad == (number >= count) for parameter in layer.parameters())
                    with_weights = [part for part in layer.modules() if list(part.parameters(recurse=False))]
                    assert all(part.training == (number >= count) for part in with_weights)
        with pytest.raises(ValueError, match=f"has {stages} stages"):
            model.freeze(stages + 1)


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pair_pool_takes_early_or_late_pairs(kind: Any) -> None:
    x = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0]]).expand(5, 5)[None, None]
    late, early = PairPool(kind, "late")(x)[0, 0, 0], PairPool(kind, "early")(x)[0, 0, 0]
    # pairs (0, 1), (2, 3), (4) and (0), (1, 2), (3, 4)
    assert late.tolist() == ([2, 8, 16] if kind == "max" else [1.5, 6, 16])
    assert early.tolist() == ([1, 4, 16] if kind == "max" else [1, 3, 12])
