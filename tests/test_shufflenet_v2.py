"""ShuffleNet V2: torchvision's names and numbers at every width."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detkit.backbones.shufflenet_v2 import ShuffleNetV2, ShuffleNetV2Classifier
from tests.reference import assert_same, outputs_at, randomise_norms, real_batch

THEIRS: dict[float, Callable[..., nn.Module]] = {
    0.5: torchvision.models.shufflenet_v2_x0_5,
    1.0: torchvision.models.shufflenet_v2_x1_0,
    1.5: torchvision.models.shufflenet_v2_x1_5,
    2.0: torchvision.models.shufflenet_v2_x2_0,
}
TAPS = ("maxpool", "stage2", "stage3", "conv5")


def test_logits_and_levels_are_torchvisions(real_data: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.shufflenet_v2_x1_0(weights=None).eval()
    randomise_norms(theirs)
    state = theirs.state_dict()
    classifier = ShuffleNetV2Classifier().eval()
    classifier.load_state_dict(state, strict=True)
    backbone = ShuffleNetV2(padding="reference").eval()
    backbone.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")}, strict=True)
    images = real_batch(real_data)
    logits, taps = outputs_at(theirs, TAPS, images)
    with torch.no_grad():
        assert_same(classifier(images), logits)
        for level, tap in zip(backbone(images), taps, strict=True):
            assert_same(level, tap)


@pytest.mark.parametrize("width", list(THEIRS))
def test_names_and_shapes_are_torchvisions(width: float) -> None:
    with torch.device("meta"):
        theirs = THEIRS[width](weights=None).state_dict()
        model = ShuffleNetV2Classifier(width)
    ours = model.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    levels = ShuffleNetV2.forward(model.eval(), torch.zeros(1, 3, 224, 224, device="meta"))
    assert tuple(level.shape[1] for level in levels) == model.channels
    assert [level.shape[-1] for level in levels] == [56, 28, 14, 7]


@pytest.mark.parametrize(
    ("width", "parameters", "multiply_adds"), [(0.5, 1.4, 41), (1.0, 2.3, 146), (1.5, 3.5, 299), (2.0, 7.4, 591)]
)
def test_size_is_the_papers(width: float, parameters: float, multiply_adds: int) -> None:
    """Table 5, in millions. Its multiply-adds are some 1 % above those of its layers: 40.5, 144.9, 295.8, 583.3."""
    with torch.device("meta"):
        model, images = ShuffleNetV2Classifier(width).eval(), torch.zeros(1, 3, 224, 224)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == parameters
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    assert counter.get_total_flops() / 2e6 == pytest.approx(multiply_adds, rel=0.015)


def test_norm_none_has_biases() -> None:
    model = ShuffleNetV2(norm="none")
    assert all(conv.bias is not None for conv in model.modules() if isinstance(conv, nn.Conv2d))


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"width 0.5, 1.0, 1.5, 2.0, got 0.75"):
        ShuffleNetV2(0.75)
    with pytest.raises(TypeError):
        ShuffleNetV2Classifier(groups=3)
