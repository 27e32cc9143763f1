"""DetNet-59 against the description in its paper; there is no reference library."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detkit.backbones.detnet import DetNet, DetNetClassifier
from detkit.backbones.resnet import ResNet, ResNetClassifier
from detkit.models.fpn import FPN
from tests.reference import outputs_at, randomise_norms

# kernel, stride, dilation, channels and cells a side at 224 px of the three convolutions of a block, row by row:
# (the stage's name, number of blocks, rows of the first block, rows of the others)
STAGES = [
    ("layer1", 3, [(1, 1, 1, 64, 56), (3, 1, 1, 64, 56), (1, 1, 1, 256, 56)]),
    ("layer2", 4, [(1, 2, 1, 128, 28), (3, 1, 1, 128, 28), (1, 1, 1, 512, 28)]),
    ("layer3", 6, [(1, 2, 1, 256, 14), (3, 1, 1, 256, 14), (1, 1, 1, 1024, 14)]),
    ("layer4", 3, [(1, 1, 1, 256, 14), (3, 1, 2, 256, 14), (1, 1, 1, 1024, 14)]),
    ("layer5", 3, [(1, 1, 1, 256, 14), (3, 1, 2, 256, 14), (1, 1, 1, 1024, 14)]),
]


def layer_row(conv: nn.Conv2d, side: int) -> tuple[int, int, int, int, int]:
    return conv.kernel_size[0], conv.stride[0], conv.dilation[0], conv.out_channels, side


def test_the_layer_table_row_by_row() -> None:
    """Figure 2: stages 1 to 4 as in ResNet-50, then stride 16 with dilation 2, blocks B, A, A."""
    model = DetNet().eval()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    _, outputs = outputs_at(model, names, torch.zeros(1, 3, 224, 224))
    rows = {name: layer_row(model.get_submodule(name), out.shape[-1]) for name, out in zip(names, outputs, strict=True)}
    assert rows.pop("conv1") == (7, 2, 1, 64, 112)
    for stage, blocks, first in STAGES:
        side = first[-1][-1]
        others = [(kernel, 1, dilation, channels, side) for kernel, _, dilation, channels, _ in first]
        for block in range(blocks):
            expected = first if block == 0 else others
            assert [rows.pop(f"{stage}.{block}.conv{i}") for i in (1, 2, 3)] == expected
        # block B of stages 5 and 6 has a projection although nothing changes its shape
        stride = 2 if stage in ("layer2", "layer3") else 1
        assert rows.pop(f"{stage}.0.downsample.0") == (1, stride, 1, first[-1][3], side)
    assert rows == {}


@pytest.mark.parametrize(("in_first", "giga"), [(True, 4.846), (False, 5.000)])
def test_multiply_adds(in_first: bool, giga: float) -> None:
    """4.8 G of the paper with the stride in the first 1x1. 59 layers with weights: 58 convolutions and the linear."""
    model = DetNetClassifier(stride_in_1x1=in_first).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga, abs=5e-4)
    in_row = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and "downsample" not in name
    ]
    assert len(in_row) == 59


def test_the_first_stages_are_those_of_resnet50() -> None:
    resnet, detnet = ResNet(50).eval(), DetNet(stride_in_1x1=False).eval()
    randomise_norms(resnet)
    shared = {key: value for key, value in resnet.state_dict().items() if not key.startswith("layer4.")}
    report = detnet.load_state_dict(shared, strict=False)
    assert report.unexpected_keys == []
    assert {key.split(".")[0] for key in report.missing_keys} == {"layer4", "layer5"}
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        for ours, theirs in zip(detnet(images)[:3], resnet(images)[:3], strict=True):
            assert torch.equal(ours, theirs)


def test_the_pyramid_adds_levels_of_equal_stride_without_upsampling() -> None:
    """With 1x1 laterals that pass one number through, level i holds the sum over all coarser ones."""
    neck = FPN((1,) * 5, (4, 8, 16, 16, 16), out_channels=1, extra_level="none")
    for lateral, output in zip(neck.lateral, neck.output, strict=True):
        nn.init.ones_(lateral[0].weight)
        nn.init.zeros_(output[0].weight)
        output[0].weight.data[..., 1, 1] = 1.0
    features = [torch.full((1, 1, side, side), value) for side, value in ((16, 1.0), (8, 2.0), (4, 4.0))]
    features += [torch.arange(16.0).view(1, 1, 4, 4), torch.full((1, 1, 4, 4), 100.0)]
    levels = neck(features)
    assert [level.shape[-1] for level in levels] == [16, 8, 4, 4, 4]
    assert torch.equal(levels[3], features[3] + 100)
    assert torch.equal(levels[2], features[3] + 104)
    assert neck.strides == (4, 8, 16, 16, 16)


def test_a_resnets_weights_are_not_a_detnets() -> None:
    """layer4 has the same names but other shapes, so nothing is taken over by mistake."""
    with pytest.raises(RuntimeError, match=r"size mismatch for layer4"):
        DetNetClassifier().load_state_dict(ResNetClassifier().state_dict())
