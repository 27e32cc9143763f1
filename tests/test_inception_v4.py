"""Inception V4: timm's names, logits and activations; the grids and the head of the paper."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from detkit.backbones.inception_v4 import InceptionV4, InceptionV4Classifier
from tests.reference import assert_same, outputs_at, randomise_norms, real_batch

# The last place of each stride. timm's own feature_info takes features.3 at stride 4, before the stem ends.
TAPS = ("features.4", "features.9", "features.17", "features.21")


@pytest.fixture(scope="module")
def empty() -> InceptionV4Classifier:
    """The classifier without values, for shapes."""
    with torch.device("meta"):
        return InceptionV4Classifier(num_classes=7).eval()


def test_logits_and_levels_are_timms(real_data: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("inception_v4").eval()
    randomise_norms(theirs)
    state = theirs.state_dict()
    with torch.device("meta"):
        ours, backbone = InceptionV4Classifier().eval(), InceptionV4(padding="reference").eval()
    ours.load_state_dict(state, strict=True, assign=True)
    backbone.load_state_dict({k: v for k, v in state.items() if not k.startswith("last_linear.")}, assign=True)
    images = real_batch(real_data, 299, 299)
    with torch.no_grad():
        assert_same(ours(images), theirs(images))
    small = images[..., 100:183, 100:207]
    _, levels = outputs_at(theirs, TAPS, small)
    with torch.no_grad():
        for our_level, their_level in zip(backbone(small), levels, strict=True):
            assert_same(our_level, their_level)


def test_grids_are_those_of_the_paper(empty: InceptionV4Classifier) -> None:
    """Figures 3 to 9: 71x71x192 after the stem's second concatenation, 35x35x384, 17x17x1024, 8x8x1536."""
    _, levels = outputs_at(empty, TAPS, torch.empty(1, 3, 299, 299, device="meta"))
    assert [tuple(level.shape[1:]) for level in levels] == [(192, 71, 71), (384, 35, 35), (1024, 17, 17), (1536, 8, 8)]
    assert [level.shape[1] for level in levels] == list(empty.channels)


def test_the_classifier_drops_a_fifth_before_its_linear_layer(empty: InceptionV4Classifier) -> None:
    """Figure 9: dropout, keep 0.8."""
    assert [module.p for module in empty.modules() if isinstance(module, nn.Dropout)] == [0.2]
    assert empty.last_linear.weight.shape == (7, 1536)


def test_pictures_that_leave_no_cell_are_refused(empty: InceptionV4Classifier) -> None:
    assert empty(torch.empty(1, 3, 75, 75, device="meta")).shape == (1, 7)
    with pytest.raises(ValueError, match=r"at least 75 x 75 px under padding=reference.*got 80 x 74"):
        empty(torch.empty(1, 3, 74, 80, device="meta"))
