"""ShuffleNet V1: the paper's layer table row by row, its multiply-adds, and what the shuffle is for."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detkit.backbones.shufflenet_v1 import ShuffleNetV1, ShuffleNetV1Classifier, ShuffleUnit

GROUPS = (1, 2, 3, 4, 8)
# Table 1: output channels of stage2, stage3, stage4, and mega multiply-adds, by the number of groups
CHANNELS = {
    1: (144, 288, 576),
    2: (200, 400, 800),
    3: (240, 480, 960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}
MULTIPLY_ADDS = {1: 143, 2: 140, 3: 137, 4: 133, 8: 137}
# Table 1, output size and repeat: (stage, side, units of stride 2 and 1)
STAGES = (("stage2", 28, 4), ("stage3", 14, 8), ("stage4", 7, 4))
# kernel, stride, dilation, groups, input channels, output channels, output side
Row = tuple[int, int, int, int, int, int, int]


def rows(model: nn.Module, side: int = 224) -> dict[str, Row]:
    """Each convolution as it runs on a picture of side x side."""
    found: dict[str, Row] = {}

    def note(name: str, conv: nn.Conv2d) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            assert conv.kernel_size[0] == conv.kernel_size[1] and output.shape[2] == output.shape[3]
            assert conv.bias is None
            ends = (inputs[0].shape[1], output.shape[1], output.shape[2])
            found[name] = (conv.kernel_size[0], conv.stride[0], conv.dilation[0], conv.groups, *ends)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note(name, module))
    model(torch.zeros(1, 3, side, side, device="meta"))
    return found


@pytest.mark.parametrize("groups", GROUPS)
def test_layer_table_of_the_paper(groups: int) -> None:
    with torch.device("meta"):
        model = ShuffleNetV1Classifier(groups).eval()
    expected: dict[str, Row] = {"conv1.0": (3, 2, 1, 1, 3, 24, 112)}
    before, side_before = 24, 56
    for (stage, side, units), outputs in zip(STAGES, CHANNELS[groups], strict=True):
        quarter = outputs // 4  # section 3.3: the bottleneck has 1/4 of the output channels
        # the caption of table 1: no groups in the first pointwise layer of stage 2
        first = 1 if stage == "stage2" else groups
        expected[f"{stage}.0.conv1"] = (1, 1, 1, first, before, quarter, side_before)
        expected[f"{stage}.0.conv2"] = (3, 2, 1, quarter, quarter, quarter, side)
        expected[f"{stage}.0.conv3"] = (1, 1, 1, groups, quarter, outputs - before, side)
        for unit in range(1, units):
            expected[f"{stage}.{unit}.conv1"] = (1, 1, 1, groups, outputs, quarter, side)
            expected[f"{stage}.{unit}.conv2"] = (3, 1, 1, quarter, quarter, quarter, side)
            expected[f"{stage}.{unit}.conv3"] = (1, 1, 1, groups, quarter, outputs, side)
        before, side_before = outputs, side
    assert list(rows(model).items()) == list(expected.items())
    assert (model.maxpool.kernel_size, model.maxpool.stride) == (3, 2)
    assert (model.fc.in_features, model.fc.out_features) == (CHANNELS[groups][-1], 1000)
    assert (model.channels, model.strides) == ((24, *CHANNELS[groups]), (4, 8, 16, 32))
    images = torch.zeros(2, 3, 224, 224, device="meta")
    assert [level.shape[-1] for level in ShuffleNetV1.forward(model, images)] == [56, 28, 14, 7]
    assert model(images).shape == (2, 1000)


def mega_multiply_adds(model: nn.Module) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 224, 224, device="meta"))
    return counter.get_total_flops() / 2 / 1e6


@pytest.mark.parametrize("groups", GROUPS)
def test_multiply_adds_of_the_paper(groups: int) -> None:
    """Table 1 counts convolutions only: with its linear layer the net has 143.1, 140.8, 137.5, 134.3, 138.4 M, so 4
    and 8 groups would be 1 M above the paper; without it all five numbers are the paper's, rounded."""
    with torch.device("meta"):
        model, classifier = ShuffleNetV1(groups).eval(), ShuffleNetV1Classifier(groups).eval()
    assert round(mega_multiply_adds(model)) == MULTIPLY_ADDS[groups]
    linear = CHANNELS[groups][-1] * 1000 / 1e6
    assert mega_multiply_adds(classifier) == pytest.approx(mega_multiply_adds(model) + linear)


def test_multiply_adds_of_other_widths() -> None:
    """Table 5 for 3 groups, this time with the linear layer: 524 M at 2x, 292 M at 1.5x."""
    for width, expected in ((2.0, 524), (1.5, 292)):
        with torch.device("meta"):
            classifier = ShuffleNetV1Classifier(3, width=width).eval()
        assert round(mega_multiply_adds(classifier)) == expected


@pytest.mark.parametrize(
    ("groups", "width", "channels"),
    [
        (3, 0.5, (12, 120, 240, 480)),
        # 8 groups do not divide 12
        (8, 0.5, (16, 192, 384, 768)),
        # nor 6
        (8, 0.25, (8, 96, 192, 384)),
        # a quarter of 0.5 * 272 = 136 is 34, which 4 groups do not divide; they divide 36
        (4, 0.5, (12, 144, 288, 576)),
        # the stem is not widened (table 5)
        (3, 1.5, (24, 360, 720, 1440)),
    ],
)
def test_width_is_rounded_up_to_what_the_groups_divide(groups: int, width: float, channels: tuple[int, ...]) -> None:
    model = ShuffleNetV1(groups, width=width).eval()
    assert model.channels == channels
    with torch.no_grad():
        assert tuple(level.shape[1] for level in model(torch.zeros(1, 3, 33, 47))) == channels


def test_after_the_shuffle_each_output_sees_every_group() -> None:
    torch.manual_seed(0)
    unit = ShuffleUnit(240, 240, 1, 3, 3, "batch").eval()
    nn.init.constant_(unit.conv1.weight, 0.01)  # nothing is cut off by the ReLU
    x = torch.rand(1, 240, 5, 5)
    for group in range(3):
        changed = x.clone()
        changed[:, 80 * group : 80 * (group + 1)] += 1  # the inputs of one group of the first 1x1
        with torch.no_grad():
            moved = (unit(changed) - changed - unit(x) + x).abs().amax((0, 2, 3))
        assert (moved > 0).float().mean() > 0.9


def test_stride_two_appends_the_average_of_the_input() -> None:
    unit = ShuffleUnit(240, 480, 2, 3, 3, "batch").eval()
    x = torch.rand(1, 240, 9, 9)
    with torch.no_grad():
        out = unit(x)
    assert out.shape == (1, 480, 5, 5)
    # the cell (1, 1) averages the 3x3 pixels around (2, 2)
    torch.testing.assert_close(out[0, :240, 1, 1], x[0, :, 1:4, 1:4].mean((1, 2)))


def test_norm_none_has_biases() -> None:
    model = ShuffleNetV1(norm="none")
    assert all(conv.bias is not None for conv in model.modules() if isinstance(conv, nn.Conv2d))


def test_other_groups_and_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="1, 2, 3, 4, 8 groups, got 5"):
        ShuffleNetV1(5)
    with pytest.raises(ValueError, match="width above 0"):
        ShuffleNetV1(width=0.0)
    with pytest.raises(TypeError):
        ShuffleNetV1Classifier(depth=3)
