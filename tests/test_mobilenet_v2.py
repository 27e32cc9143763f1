"""MobileNet V2: torchvision's names and numbers, the paper's table row by row, its multiply-adds and parameters."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detkit.backbones.mobilenet_v2 import InvertedResidual, MobileNetV2, MobileNetV2Classifier
from tests.reference import assert_same, outputs_at, randomise_norms, real_batch

# Sandler et al., 2018, table 2, one row per block: expanded channels, stride, output channels, output side at 224.
BLOCKS = [
    (32, 1, 16, 112),
    (96, 2, 24, 56),
    (144, 1, 24, 56),
    (144, 2, 32, 28),
    *[(192, 1, 32, 28)] * 2,
    (192, 2, 64, 14),
    *[(384, 1, 64, 14)] * 3,
    (384, 1, 96, 14),
    *[(576, 1, 96, 14)] * 2,
    (576, 2, 160, 7),
    *[(960, 1, 160, 7)] * 2,
    (960, 1, 320, 7),
]


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_logits_and_taps_are_torchvisions(real_data: Path, width: float) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v2(weights=None, width_mult=width).eval()
    randomise_norms(theirs)
    state = theirs.state_dict()
    classifier = MobileNetV2Classifier(width=width).eval()
    classifier.load_state_dict(state, strict=True)
    backbone = MobileNetV2(width=width, padding="reference").eval()
    backbone.load_state_dict({name: value for name, value in state.items() if not name.startswith("classifier.")})
    images = real_batch(real_data)
    expected, taps = outputs_at(theirs, [f"features.{number}" for number in (3, 6, 13, 18)], images)
    with torch.no_grad():
        assert_same(classifier(images), expected)
        for level, tap in zip(backbone(images), taps, strict=True):
            assert_same(level, tap)


@pytest.mark.parametrize("width", [1.4, 0.75, 0.35, 0.1])
def test_names_and_shapes_are_torchvisions(width: float) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.mobilenet_v2(weights=None, width_mult=width)
        ours = MobileNetV2Classifier(width=width)
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }


def test_layers_are_the_papers() -> None:
    rows, convs = [], []

    def note_block(block: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        assert isinstance(block, InvertedResidual)
        [depthwise] = [conv for conv in block.modules() if isinstance(conv, nn.Conv2d) and conv.groups > 1]
        assert depthwise.kernel_size == (3, 3) and depthwise.groups == depthwise.in_channels
        rows.append((depthwise.groups, depthwise.stride[0], *output.shape[1:3]))
        assert block.shortcut == (inputs[0].shape == output.shape)
        assert isinstance(list(block.conv)[-1], nn.BatchNorm2d)  # the bottleneck is linear

    def note_conv(conv: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        assert isinstance(conv, nn.Conv2d) and conv.dilation == (1, 1)
        convs.append((conv.kernel_size[0], conv.stride[0], *output.shape[1:3]))

    with torch.device("meta"):
        model = MobileNetV2().eval()
        for module in model.modules():
            if isinstance(module, InvertedResidual):
                module.register_forward_hook(note_block)
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(note_conv)
        model(torch.zeros(1, 3, 224, 224))
    assert rows == BLOCKS
    assert convs[0] == (3, 2, 32, 112)
    assert convs[-1] == (1, 1, 1280, 7)
    # one behind the stem, one in the block without expansion, two in each other, one behind the last 1x1
    assert sum(isinstance(module, nn.ReLU6) for module in model.modules()) == 1 + 1 + 2 * 16 + 1


@pytest.mark.parametrize(
    ("width", "multiply_adds", "weights"),
    [(1.4, 582, 6.06), (1.0, 300, 3.47), (0.5, 97, 1.95), (0.35, 59, 1.66)],
)
def test_multiply_adds_and_weights_are_the_authors(width: float, multiply_adds: int, weights: float) -> None:
    """In millions at 224, cut off: the list beside the authors' code (tensorflow/models, nets/mobilenet/README.md).

    The paper's table 4 says 300 M and 3.4 M for width 1: the same, of weights of convolutions and the linear layer
    alone, cut off; norms and biases make it 3.5 M. For width 1.4 it says 585 M and 6.9 M, which its own table 2 does
    not give: the authors' list has 582 M and 6.06 M for it, as here.
    """
    with torch.device("meta"):
        model = MobileNetV2Classifier(width=width).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 224, 224))
    assert int(counter.get_total_flops() / 2e6) == multiply_adds
    assert round(sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1) / 1e6, 2) == weights


def test_width_spares_the_last_convolution_below_one() -> None:
    assert MobileNetV2().channels == (24, 32, 96, 1280)
    assert MobileNetV2(width=0.5).channels == (16, 16, 48, 1280)
    assert MobileNetV2(width=1.4).channels == (32, 48, 136, 1792)
    with pytest.raises(ValueError, match="expected a width above 0, got 0"):
        MobileNetV2(width=0)


def test_without_norm_the_activations_keep_their_size() -> None:
    torch.manual_seed(0)
    model = MobileNetV2(norm="none").eval()
    with torch.no_grad():
        levels = model(torch.randn(1, 3, 96, 96))
    assert all(0.1 < float(level.std()) < 10 for level in levels)
    assert all(conv.bias is not None for conv in model.modules() if isinstance(conv, nn.Conv2d))
