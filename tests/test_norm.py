"""Folding norms into convolutions, and the groups of group norm."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from detkit.backbones.resnet import ResNet
from detkit.models.fpn import FPN
from detkit.models.roi_head import BoxHead
from detkit.norm import fold_norm, make_norm, set_norm_eps
from tests.tiny_detector import tiny_detector


def randomise_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.0)
            module.bias.data.normal_(std=0.1)


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)) for module in model.modules())


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("depth", [18, 50])
def test_a_folded_backbone_computes_the_same(norm: str, depth: int) -> None:
    torch.manual_seed(0)
    model = ResNet(depth, norm=norm).eval()
    randomise_norms(model)
    folded = fold_norm(model)
    assert norms(folded) == 0
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for got, expected in zip(folded(images), model(images), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_the_original_stays_as_it_was() -> None:
    model = ResNet(18).train()
    randomise_norms(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_norm(model)
    assert model.training
    assert not folded.training
    assert norms(model) == 20
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    mine = {parameter.data_ptr() for parameter in model.parameters()}
    assert not mine & {parameter.data_ptr() for parameter in folded.parameters()}


def test_by_hand() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0))
    for value, wanted in ((layers[0].weight, 3.0), (layers[0].bias, 1.0), (layers[1].weight, 5.0)):
        nn.init.constant_(value, wanted)
    layers[1].running_mean.fill_(2.0)
    layers[1].running_var.fill_(4.0)
    nn.init.constant_(layers[1].bias, 7.0)
    # 5 * ((3 x + 1) - 2) / 2 + 7 = 7.5 x + 4.5
    conv = fold_norm(layers)[0]
    assert (conv.weight.item(), conv.bias.item()) == (7.5, 4.5)


def test_another_eps_by_hand() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), FrozenBatchNorm2d(1), nn.GroupNorm(1, 1)).eval()
    set_norm_eps(layers[:3], 3.0)
    assert (layers[1].eps, layers[2].eps, layers[3].eps) == (3.0, 3.0, 1e-5)
    # (x - 0) / sqrt(1 + 3) = x / 2, twice
    assert layers[2](layers[1](torch.full((1, 1, 1, 1), 8.0))).item() == 2.0
    nn.init.constant_(layers[0].weight, 6.0)
    nn.init.zeros_(layers[0].bias)
    assert fold_norm(layers)[0].weight.item() == 3.0


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_the_configs_eps_reaches_every_norm_of_the_backbone_alone(norm: str) -> None:
    changes = {"backbone__norm": norm, "neck__norm": "batch"}
    default, changed = tiny_detector(**changes), tiny_detector(**changes, backbone__norm_eps=0.0)
    for model, eps in ((default, 1e-5), (changed, 0.0)):
        of_backbone = [module.eps for module in model.backbone.modules() if hasattr(module, "running_mean")]
        assert of_backbone == [eps] * 20
        assert {module.eps for module in model.neck.modules() if hasattr(module, "running_mean")} == {1e-5}


def test_neck_and_convolutions_of_the_head_fold_too() -> None:
    torch.manual_seed(0)
    fpn = FPN((3, 4), (4, 8), 8, norm="batch").eval()
    head = BoxHead(8, 3, 2, convs=2, conv_channels=8, width=8, norm="batch").eval()
    features, pooled = [torch.randn(1, 3, 8, 8), torch.randn(1, 4, 4, 4)], torch.randn(5, 8, 3, 3)
    for model, given in ((fpn, features), (head, pooled)):
        randomise_norms(model)
        folded = fold_norm(model)
        assert norms(folded) == 0
        for got, expected in zip(folded(given), model(given), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_channels_last_weights_stay_channels_last() -> None:
    layers = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)).to(memory_format=torch.channels_last)
    assert fold_norm(layers)[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_norm_that_follows_no_convolution_stays() -> None:
    layers = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)).eval()
    randomise_norms(layers)
    images = torch.randn(2, 3, 4, 4)
    assert norms(fold_norm(layers)) == 2
    torch.testing.assert_close(fold_norm(layers)(images), layers(images))


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (96, 32), (48, 16), (24, 8), (6, 2), (7, 1)])
def test_group_sizes(channels: int, groups: int) -> None:
    norm = make_norm("group", channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups


def test_eps_is_passed_on_and_an_unknown_kind_is_refused() -> None:
    assert all(make_norm(kind, 8, eps=0.25).eps == 0.25 for kind in ("batch", "frozen", "group", "sync"))
    with pytest.raises(ValueError, match="got 'instance'"):
        make_norm("instance", 8)
