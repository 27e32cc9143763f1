"""The faster 3x3 convolution against PyTorch's, by taps and in tiles."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from detkit import convolution
from detkit.backbones.resnet import ResNet
from detkit.build import build_detector
from detkit.config import BackboneConfig, ModelConfig
from detkit.convolution import FastConv2d, Least, has_fast_convolutions, plain_convolutions, speed_up, weight_gradient


def gradients(conv: nn.Module, maps: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Of the parameters and of what went in."""
    conv.zero_grad()
    maps = maps.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    (conv(maps) * wanted).sum().backward()
    assert maps.grad is not None
    return {"maps": maps.grad, **{name: value.grad for name, value in conv.named_parameters()}}


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in tiles, however small."""
    monkeypatch.setattr(convolution, "CONVOLVED", Least(1, 1))
    monkeypatch.setattr(convolution, "LEARNED", Least(1, 1))


@pytest.fixture(params=["by taps", "in tiles"])
def way(request: pytest.FixtureRequest) -> None:
    if request.param == "in tiles":
        request.getfixturevalue("tiled")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("size", "dilation"), [((1, 1), 1), ((1, 5), 1), ((7, 4), 1), ((2, 2), 2), ((9, 6), 3)])
def test_gradients_are_pytorchs(size: tuple[int, int], dilation: int, bias: bool, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(17, 5, 3, padding=dilation, dilation=dilation, bias=bias).to(memory_format=layout)
    maps = torch.randn(3, 17, *size).contiguous(memory_format=layout)
    wanted = torch.randn(3, 5, *size)
    expected = gradients(plain, maps, wanted)
    found = gradients(FastConv2d(plain), maps, wanted)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.usefixtures("way")
def test_a_gradient_by_hand() -> None:
    # One cell of 3 and, at its right, one of 5; the gradient is 1 at the left cell and 10 at the right one.
    maps, gradient = torch.tensor([[[[3.0, 5.0]]]]), torch.tensor([[[[1.0, 10.0]]]])
    middle = weight_gradient(maps, gradient)[0, 0]
    # left tap: the right cell saw 3; middle: 1 * 3 + 10 * 5; right: the left cell saw 5
    torch.testing.assert_close(middle, torch.tensor([[0.0, 0, 0], [30, 53, 5], [0, 0, 0]]), rtol=0, atol=2e-5)


@pytest.mark.usefixtures("way")
def test_gradcheck() -> None:
    torch.manual_seed(0)
    conv = FastConv2d(nn.Conv2d(2, 3, 3, padding=1)).double()
    maps = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: conv(x), (maps, *conv.parameters()))


@pytest.mark.usefixtures("way")
def test_a_net_keeps_its_names_its_results_and_its_gradients() -> None:
    torch.manual_seed(0)
    plain = ResNet(18).to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    speed_up(fast)
    # two in each of the eight blocks, of which three strided ones and the stem stay
    assert sum(isinstance(module, FastConv2d) for module in fast.modules()) == 13
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in fast.named_modules()] == [name for name, _ in plain.named_modules()]
    images = torch.randn(2, 3, 64, 96)
    for model in (plain, fast):
        torch.stack([level.square().mean() for level in model(images)]).sum().backward()
    for (name, mine), theirs in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        assert float((mine.grad - theirs.grad).abs().max()) <= 1e-4 * float(theirs.grad.abs().max()), name


@pytest.mark.parametrize(
    ("channels_in", "channels_out", "size", "tiled"),
    [
        (256, 256, (1, 48, 50), True),  # 614,400 numbers
        (256, 256, (2, 24, 50), True),
        (256, 256, (1, 46, 50), False),  # 588,800
        (128, 256, (1, 96, 100), False),
        (256, 128, (1, 96, 100), False),
    ],
)
def test_large_maps_of_many_channels_go_in_tiles(
    channels_in: int, channels_out: int, size: tuple[int, int, int], tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convolve(maps: Tensor, *_: object) -> Tensor:
        raise NotImplementedError(maps.shape)

    monkeypatch.setattr(convolution.winograd, "convolve", convolve)
    batch, height, width = size
    conv = FastConv2d(nn.Conv2d(channels_in, channels_out, 3, padding=1).requires_grad_(False))
    with pytest.raises(NotImplementedError) if tiled else nullcontext():
        conv(torch.zeros(batch, channels_in, height, width))


@pytest.mark.parametrize(
    ("capabilities", "wanted", "fast"),
    [({"avx2"}, True, True), ({"avx2"}, False, False), ({"avx2", "avx512_f"}, True, False), (set(), True, False)],
)
def test_who_gets_them(capabilities: set[str], wanted: bool, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(capabilities, True))
    config = ModelConfig(backbone=BackboneConfig(name="squeezenet1_1"), fast_convolutions=wanted)
    assert has_fast_convolutions(build_detector(config, 2)) == fast


def test_frozen_weights_learn_nothing_and_pass_the_gradient_on() -> None:
    conv = FastConv2d(nn.Conv2d(16, 16, 3, padding=1).requires_grad_(False))
    maps = torch.randn(1, 16, 4, 4)
    assert conv(maps).grad_fn is None
    found, expected = (maps.clone().requires_grad_() for _ in range(2))
    conv(found).square().sum().backward()
    nn.functional.conv2d(expected, conv.weight, conv.bias, padding=1).square().sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-4)
    assert conv.weight.grad is None


def test_autocast_and_the_asked_take_the_plain_way() -> None:
    conv = FastConv2d(nn.Conv2d(16, 16, 3, padding=1))
    maps = torch.randn(1, 16, 4, 4)
    assert "_Convolution" in str(conv(maps).grad_fn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "_Convolution" not in str(conv(maps).grad_fn)
    with plain_convolutions(conv):
        assert "_Convolution" not in str(conv(maps).grad_fn)
    assert "_Convolution" in str(conv(maps).grad_fn)
