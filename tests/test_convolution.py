"""The 3x3 convolution with its own weight gradient against PyTorch's."""

import copy

import pytest
import torch
from torch import Tensor, nn

from detkit.backbones.resnet import ResNet
from detkit.convolution import ProductGradConv2d, speed_up_gradients, weight_gradient


def gradients(conv: nn.Module, maps: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Of the parameters and of what went in."""
    conv.zero_grad()
    maps = maps.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    (conv(maps) * wanted).sum().backward()
    assert maps.grad is not None
    return {"maps": maps.grad, **{name: value.grad for name, value in conv.named_parameters()}}


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("size", "dilation"), [((1, 1), 1), ((1, 5), 1), ((7, 4), 1), ((2, 2), 2), ((9, 6), 3)])
def test_gradients_are_pytorchs(size: tuple[int, int], dilation: int, bias: bool, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(17, 5, 3, padding=dilation, dilation=dilation, bias=bias).to(memory_format=layout)
    maps = torch.randn(3, 17, *size).contiguous(memory_format=layout)
    wanted = torch.randn(3, 5, *size)
    expected = gradients(plain, maps, wanted)
    found = gradients(ProductGradConv2d(plain), maps, wanted)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_gradient_by_hand() -> None:
    # One cell of 3 and, at its right, one of 5; the gradient is 1 at the left cell and 10 at the right one.
    maps, gradient = torch.tensor([[[[3.0, 5.0]]]]), torch.tensor([[[[1.0, 10.0]]]])
    middle = weight_gradient(maps, gradient)[0, 0]
    # left tap: the right cell saw 3; middle: 1 * 3 + 10 * 5; right: the left cell saw 5
    assert middle.tolist() == [[0, 0, 0], [30, 53, 5], [0, 0, 0]]


def test_gradcheck() -> None:
    torch.manual_seed(0)
    conv = ProductGradConv2d(nn.Conv2d(2, 3, 3, padding=1)).double()
    maps = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: conv(x), (maps, *conv.parameters()))


def test_a_net_keeps_its_names_its_results_and_its_gradients() -> None:
    torch.manual_seed(0)
    plain = ResNet(18).to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    speed_up_gradients(fast)
    # two in each of the eight blocks, of which three strided ones and the stem stay
    assert sum(isinstance(module, ProductGradConv2d) for module in fast.modules()) == 13
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in fast.named_modules()] == [name for name, _ in plain.named_modules()]
    images = torch.randn(2, 3, 64, 96)
    for model in (plain, fast):
        torch.stack([level.square().mean() for level in model(images)]).sum().backward()
    for (name, mine), theirs in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        assert float((mine.grad - theirs.grad).abs().max()) <= 1e-4 * float(theirs.grad.abs().max()), name


def test_frozen_weights_and_autocast_take_the_plain_way() -> None:
    conv = ProductGradConv2d(nn.Conv2d(16, 16, 3, padding=1))
    maps = torch.randn(1, 16, 4, 4, requires_grad=True)
    assert "_Convolution" in str(conv(maps).grad_fn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "_Convolution" not in str(conv(maps).grad_fn)
    conv.weight.requires_grad_(False)
    assert "_Convolution" not in str(conv(maps).grad_fn)
