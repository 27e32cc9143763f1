"""MobileNet V1: timm's names and numbers, the paper's table row by row, its multiply-adds and parameters."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detkit.backbones.mobilenet_v1 import MobileNetV1, MobileNetV1Classifier, scale_channels
from tests.reference import assert_same, outputs_at, randomise_norms, real_batch

# Howard et al., 2017, table 1: kernel, stride, output channels, output side at 224; dw: one kernel per channel.
# Its last depthwise row says s2 at 7 x 7 although the next row is still 7 x 7: the stride is 1.
TABLE = [
    ("conv", 3, 2, 32, 112),
    *(("dw", 3, 1, 32, 112), ("conv", 1, 1, 64, 112)),
    *(("dw", 3, 2, 64, 56), ("conv", 1, 1, 128, 56)),
    *(("dw", 3, 1, 128, 56), ("conv", 1, 1, 128, 56)),
    *(("dw", 3, 2, 128, 28), ("conv", 1, 1, 256, 28)),
    *(("dw", 3, 1, 256, 28), ("conv", 1, 1, 256, 28)),
    *(("dw", 3, 2, 256, 14), ("conv", 1, 1, 512, 14)),
    *(("dw", 3, 1, 512, 14), ("conv", 1, 1, 512, 14)) * 5,
    *(("dw", 3, 2, 512, 7), ("conv", 1, 1, 1024, 7)),
    *(("dw", 3, 1, 1024, 7), ("conv", 1, 1, 1024, 7)),
]


@pytest.mark.parametrize(("name", "width"), [("mobilenetv1_100", 1.0), ("mobilenetv1_125", 1.25)])
def test_logits_and_taps_are_timms(real_data: Path, name: str, width: float) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False).eval()
    randomise_norms(theirs)
    state = theirs.state_dict()
    classifier = MobileNetV1Classifier(width=width).eval()
    classifier.load_state_dict(state, strict=True)
    backbone = MobileNetV1(width=width, padding="reference").eval()
    backbone.load_state_dict({key: value for key, value in state.items() if not key.startswith("classifier.")})
    images = real_batch(real_data)
    expected, taps = outputs_at(theirs, [f"blocks.{stage}" for stage in (1, 2, 3, 4)], images)
    with torch.no_grad():
        assert_same(classifier(images), expected)
        for level, tap in zip(backbone(images), taps, strict=True):
            assert_same(level, tap)


def test_layers_are_the_papers() -> None:
    rows = []

    def note(conv: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        assert isinstance(conv, nn.Conv2d) and conv.dilation == (1, 1)
        assert conv.groups in (1, conv.in_channels)
        kind = "conv" if conv.groups == 1 else "dw"
        assert output.shape[2] == output.shape[3]
        rows.append((kind, conv.kernel_size[0], conv.stride[0], conv.out_channels, output.shape[-1]))

    with torch.device("meta"):
        model = MobileNetV1().eval()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(note)
        model(torch.zeros(1, 3, 224, 224))
    assert rows == TABLE
    assert sum(isinstance(module, nn.ReLU6) for module in model.modules()) == 14


@pytest.mark.parametrize(
    ("width", "multiply_adds", "parameters"), [(1.0, 569, 4.2), (0.75, 325, 2.6), (0.5, 149, 1.3), (0.25, 41, 0.5)]
)
def test_multiply_adds_and_parameters_are_the_papers(width: float, multiply_adds: int, parameters: float) -> None:
    # Howard et al., 2017, table 6, at 224, in millions
    with torch.device("meta"):
        model = MobileNetV1Classifier(width=width).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 224, 224))
    assert round(counter.get_total_flops() / 2e6) == multiply_adds
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == parameters


def test_channels_are_scaled_to_multiples_of_eight() -> None:
    # 32 * 0.35 = 11.2: 8 is more than a tenth below, so 16; 24 * 0.75 = 18: the nearest, 16, is too far below as well
    assert [scale_channels(32, width) for width in (1.0, 0.75, 0.35, 0.1)] == [32, 24, 16, 8]
    assert scale_channels(24, 0.75) == 24
    assert scale_channels(100, 1.0) == 104  # a half goes up
    assert MobileNetV1(width=0.5).channels == (64, 128, 256, 512)
    for width in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a width above 0, got"):
            MobileNetV1(width=width)


def test_without_norm_the_activations_keep_their_size() -> None:
    torch.manual_seed(0)
    model = MobileNetV1(norm="none").eval()
    with torch.no_grad():
        levels = model(torch.randn(1, 3, 96, 96))
    assert all(0.1 < float(level.std()) < 10 for level in levels)
    assert all(conv.bias is not None for conv in model.modules() if isinstance(conv, nn.Conv2d))
