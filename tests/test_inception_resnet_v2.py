"""Inception-ResNet V2: timm's names, logits and activations; residual scaling; the head of the paper."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from detkit.backbones.inception_blocks import Layers
from detkit.backbones.inception_resnet_v2 import Block35, InceptionResNetV2, InceptionResNetV2Classifier
from tests.reference import assert_same, outputs_at, randomise_norms, real_batch

TAPS = ("conv2d_4a", "repeat", "repeat_1", "conv2d_7b")


@pytest.fixture(scope="module")
def empty() -> InceptionResNetV2Classifier:
    """The classifier without values, for shapes."""
    with torch.device("meta"):
        return InceptionResNetV2Classifier(num_classes=7).eval()


def test_logits_and_levels_are_timms(real_data: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("inception_resnet_v2").eval()
    randomise_norms(theirs)
    state = theirs.state_dict()
    with torch.device("meta"):
        ours, backbone = InceptionResNetV2Classifier().eval(), InceptionResNetV2(padding="reference").eval()
    ours.load_state_dict(state, strict=True, assign=True)
    backbone.load_state_dict({k: v for k, v in state.items() if not k.startswith("classif.")}, assign=True)
    images = real_batch(real_data, 299, 299)
    with torch.no_grad():
        assert_same(ours(images), theirs(images))
    small = images[..., 100:183, 100:207]
    _, levels = outputs_at(theirs, TAPS, small)
    with torch.no_grad():
        for our_level, their_level in zip(backbone(small), levels, strict=True):
            assert_same(our_level, their_level)


def test_grids_are_those_of_the_published_net(empty: InceptionResNetV2Classifier) -> None:
    _, levels = outputs_at(empty, TAPS, torch.empty(1, 3, 299, 299, device="meta"))
    assert [tuple(level.shape[1:]) for level in levels] == [(192, 71, 71), (320, 35, 35), (1088, 17, 17), (1536, 8, 8)]
    assert [level.shape[1] for level in levels] == list(empty.channels)


def test_the_residual_is_scaled_before_it_is_added() -> None:
    torch.manual_seed(0)
    plain, scaled = (Block35(Layers("batch", "centred"), scale).eval() for scale in (1.0, 0.5))
    scaled.load_state_dict(plain.state_dict())
    x = torch.rand(1, 320, 5, 5) + 100  # so large that ReLU cuts nothing
    with torch.no_grad():
        whole, half = plain(x) - x, scaled(x) - x
    assert float(whole.abs().mean()) > 1
    torch.testing.assert_close(half, whole / 2, atol=1e-3, rtol=1e-3)


def test_scales_are_those_of_the_published_net_or_ones_own(empty: InceptionResNetV2Classifier) -> None:
    with torch.device("meta"):
        own = InceptionResNetV2(scales=(1.0, 0.3, 0.5))
    for net, expected in ((empty, (0.17, 0.1, 0.2)), (own, (1.0, 0.3, 0.5))):
        for row, scale in zip((net.repeat, net.repeat_1, net.repeat_2), expected, strict=True):
            assert {block.scale for block in row} == {scale}
        assert net.block8.scale == 1.0
        assert not any(isinstance(module, nn.ReLU) for module in net.block8.children())


def test_the_classifier_drops_a_fifth_before_its_linear_layer(empty: InceptionResNetV2Classifier) -> None:
    """Figure 15: dropout, keep 0.8."""
    assert [module.p for module in empty.modules() if isinstance(module, nn.Dropout)] == [0.2]
    assert empty.classif.weight.shape == (7, 1536)


def test_pictures_that_leave_no_cell_are_refused(empty: InceptionResNetV2Classifier) -> None:
    assert empty(torch.empty(1, 3, 75, 75, device="meta")).shape == (1, 7)
    with pytest.raises(ValueError, match=r"at least 75 x 75 px under padding=reference.*got 80 x 74"):
        empty(torch.empty(1, 3, 74, 80, device="meta"))
