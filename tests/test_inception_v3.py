"""Inception V3: torchvision's names and numbers."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detkit.backbones.inception_v3 import InceptionV3, InceptionV3Classifier
from tests.reference import assert_same, outputs_at, randomise_norms, real_batch

TAPS = ("Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=False).eval()
    randomise_norms(model)
    return model


def test_names_logits_and_levels_are_torchvisions(theirs: nn.Module, real_data: Path) -> None:
    ours = InceptionV3Classifier().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = real_batch(real_data, 299, 299)
    logits, taps = outputs_at(theirs, TAPS, images)
    assert [tap.shape[-1] for tap in taps] == [71, 35, 17, 8]
    with torch.no_grad():
        assert_same(ours(images), logits)
        backbone = InceptionV3(padding="reference").eval()
        own = backbone.state_dict().keys()
        heads = {key for key in theirs.state_dict() if key.startswith(("AuxLogits.", "fc."))}
        assert own | heads == theirs.state_dict().keys()
        backbone.load_state_dict({key: theirs.state_dict()[key] for key in own})
        for level, tap in zip(backbone(images), taps, strict=True):
            assert_same(level, tap)


def test_the_auxiliary_logits_are_torchvisions(theirs: nn.Module, real_data: Path) -> None:
    ours = InceptionV3Classifier()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = real_batch(real_data, 299, 299)
    _, (at_6e,) = outputs_at(theirs, ("Mixed_6e",), images)
    for part in ours.children():
        part.eval()  # the net itself stays in training mode, its norms and dropout do not
    with torch.no_grad():
        logits, auxiliary = ours(images)
        assert_same(logits, theirs(images))
        assert_same(auxiliary, theirs.AuxLogits(at_6e))
    assert ours.auxiliary_weight == 0.4
    ours.AuxLogits = None
    with torch.no_grad():
        assert isinstance(ours(images), Tensor)


def test_unpadded_layers_need_larger_pictures() -> None:
    with pytest.raises(ValueError, match="at least 75 x 75 px under padding=reference"):
        InceptionV3(padding="reference")(torch.zeros(1, 3, 74, 299))
    assert InceptionV3(padding="reference").eval()(torch.zeros(1, 3, 75, 75))[-1].shape[-1] == 1
