"""VGG-16 with and without batch norm: torchvision's names and numbers, the paper's table row by row."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detkit.backbones.vgg import VGG, VGGClassifier
from tests.reference import assert_same, outputs_at, randomise_norms, real_batch

# Norm -> torchvision's net, and its layers behind conv3_3, conv4_3, conv5_3 and pool5.
THEIRS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "none": (torchvision.models.vgg16, (15, 22, 29, 30)),
    "batch": (torchvision.models.vgg16_bn, (22, 32, 42, 43)),
}

# Simonyan and Zisserman, 2015, table 1, column D: channels of each 3x3 convolution, and its side at 224.
TABLE = [
    *[(64, 224)] * 2,
    *[(128, 112)] * 2,
    *[(256, 56)] * 3,
    *[(512, 28)] * 3,
    *[(512, 14)] * 3,
]


@pytest.mark.parametrize("norm", THEIRS)
def test_logits_and_taps_are_torchvisions(real_data: Path, norm: str) -> None:
    torch.manual_seed(0)
    build, places = THEIRS[norm]
    theirs = build(weights=None, init_weights=False).eval()  # its own takes seconds, and makes tiny logits
    randomise_norms(theirs)
    state = theirs.state_dict()
    with torch.device("meta"):
        classifier = VGGClassifier(norm=norm).eval()
        backbone = VGG(norm=norm, padding="reference").eval()
    classifier.load_state_dict(state, strict=True, assign=True)
    body = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    backbone.load_state_dict(body, strict=True, assign=True)
    images = real_batch(real_data)
    expected, taps = outputs_at(theirs, [f"features.{place}" for place in places], images)
    with torch.no_grad():
        assert_same(classifier(images), expected)
        for level, tap in zip(backbone(images), taps, strict=True):
            assert_same(level, tap)


@pytest.mark.parametrize("norm", THEIRS)
def test_layers_are_the_papers(norm: str) -> None:
    rows, units = [], []

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            assert (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
            rows.append((layer.out_channels, output.shape[-1]))
        else:
            units.append(output.shape[-1])

    with torch.device("meta"):
        model = VGGClassifier(norm=norm).eval()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(note)
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 224, 224))
    assert rows == TABLE
    assert units == [4096, 4096, 1000]
    # 15.35 G of the convolutions, e.g. conv1_2: 224^2 * 64 * 576 = 1.85 G, and 0.12 G of the linear layers
    assert counter.get_total_flops() / 2 == 15_470_264_320
    norms = 0 if norm == "none" else 2 * sum(channels for channels, _ in TABLE)
    assert sum(parameter.numel() for parameter in model.parameters()) == 138_357_544 + norms  # table 2: 138 M


def test_the_pools_alternate_so_that_their_offsets_do_not_add_up() -> None:
    """A late pool moves cells by half its input's stride to the right, an early one to the left."""
    pools = [layer for layer in VGG().features if hasattr(layer, "when")]
    assert [layer.when for layer in pools] == ["late", "early", "late", "early", "late"]
    offset, stride, offsets = 0.0, 1, []
    for layer in pools:
        offset += (0.5 if layer.when == "late" else -0.5) * stride
        stride *= 2
        offsets.append((stride, offset))
    # px behind each pool; five late ones would be 15.5
    assert offsets == [(2, 0.5), (4, -0.5), (8, 1.5), (16, -2.5), (32, 5.5)]


def test_a_norm_of_another_kind_takes_the_place_of_batch_norm() -> None:
    for norm, kind in (("group", nn.GroupNorm), ("frozen", torchvision.ops.FrozenBatchNorm2d)):
        with torch.device("meta"):
            model = VGG(norm=norm)
        assert [type(layer) for layer in model.features[:3]] == [nn.Conv2d, kind, nn.ReLU]
        assert sum(isinstance(layer, kind) for layer in model.features) == 13
