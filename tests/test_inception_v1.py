"""GoogLeNet: torchvision's names and numbers with batch norm, and the paper's table without."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detkit.backbones.inception_v1 import BLOCKS, InceptionV1, InceptionV1Classifier
from tests.reference import assert_same, outputs_at, randomise_norms, real_batch

TAPS = ("conv3", "inception3b", "inception4e", "inception5b")

# Table 1: output size, channels, parameters in K, multiply-adds in M. K is 1,024 there: 64 * 64 + 9 * 64 * 192 are
# 114,688 weights of "convolution 3x3", for which it says 112K.
TABLE = {
    "conv3": (56, 192, 112, 360),
    "inception3a": (28, 256, 159, 128),
    "inception3b": (28, 480, 380, 304),
    "inception4a": (14, 512, 364, 73),
    "inception4b": (14, 512, 437, 88),
    "inception4c": (14, 512, 463, 100),
    "inception4d": (14, 528, 580, 119),
    "inception4e": (14, 832, 840, 170),
    "inception5a": (7, 832, 1072, 54),
    "inception5b": (7, 1024, 1388, 71),
}
# Rows whose printed parameters do not follow from their printed widths, with those that do.
WRONG_PARAMETERS = {"inception4c": 497, "inception4d": 590, "inception5a": 1018, "inception5b": 1409}


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.googlenet(weights=None, init_weights=False, transform_input=False).eval()
    randomise_norms(model)
    return model


def test_names_logits_and_levels_are_torchvisions(theirs: nn.Module, real_data: Path) -> None:
    ours = InceptionV1Classifier().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = real_batch(real_data)
    logits, taps = outputs_at(theirs, TAPS, images)
    with torch.no_grad():
        assert_same(ours(images), logits)
        backbone = InceptionV1(padding="reference").eval()
        own = backbone.state_dict().keys()
        heads = {key for key in theirs.state_dict() if key.startswith(("aux", "fc."))}
        assert own | heads == theirs.state_dict().keys()
        backbone.load_state_dict({key: theirs.state_dict()[key] for key in own})
        for level, tap in zip(backbone(images), taps, strict=True):
            assert_same(level, tap)


def test_auxiliary_logits_are_torchvisions(theirs: nn.Module, real_data: Path) -> None:
    ours = InceptionV1Classifier()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = real_batch(real_data)
    _, (at_4a, at_4d) = outputs_at(theirs, ("inception4a", "inception4d"), images)
    with torch.no_grad():
        expected = theirs.aux1(at_4a), theirs.aux2(at_4d)
        for part in ours.children():
            part.eval()  # the net itself stays in training mode, its norms and dropouts do not
        assert ours.training
        logits, *auxiliary = ours(images)
        assert_same(logits, theirs(images))
        for got, wanted in zip(auxiliary, expected, strict=True):
            assert_same(got, wanted)
    assert ours.auxiliary_weight == 0.3
    assert isinstance(InceptionV1Classifier(aux=False).train()(torch.randn(2, 3, 64, 64)), Tensor)


def test_the_papers_table_row_by_row() -> None:
    """Table 1 at 224 px, true 5x5. Rows of the table cover what comes before them: conv3 has the reduction in it."""
    model = InceptionV1Classifier(norm="none").eval()
    with FlopCounterMode(display=False) as counter:
        _, outputs = outputs_at(model, tuple(TABLE), torch.zeros(1, 3, 224, 224))
    counts = counter.get_flop_counts()
    for (name, (side, channels, kilo, mega)), output in zip(TABLE.items(), outputs, strict=True):
        assert output.shape == (1, channels, side, side), name
        parts = ("conv2", "conv3") if name == "conv3" else (name,)
        convs = [m for part in parts for m in model.get_submodule(part).modules() if isinstance(m, nn.Conv2d)]
        weights = sum(conv.weight.numel() for conv in convs)
        assert weights / 1024 == pytest.approx(WRONG_PARAMETERS.get(name, kilo), rel=0.01), name
        adds = sum(sum(counts[f"InceptionV1Classifier.{part}"].values()) for part in parts) / 2e6
        # 54 M of 5a belong to its wrong 1,072K: the widths give 51 M
        assert adds == pytest.approx(51.1 if name == "inception5a" else mega, rel=0.015), name
    for name in BLOCKS:
        assert model.get_submodule(f"{name}.branch3.1.conv").kernel_size == (5, 5)
    # The text says 1.5 G in all; its first row has 34 M and 2.7K, but 7 * 7 * 3 * 64 weights at 112 x 112 are 118 M.
    total = counter.get_total_flops() / 2e9
    assert total == pytest.approx(1.582, abs=0.002)
    assert total - 0.118 + 0.034 == pytest.approx(1.5, abs=0.01)


def test_response_norm_is_an_option() -> None:
    model = InceptionV1(norm="none", lrn=True).eval()
    stages = model.stages()
    assert [type(layer) for layer in stages[1]][1] is nn.LocalResponseNorm
    assert type(stages[2][0]) is nn.LocalResponseNorm
    plain = InceptionV1(norm="none").eval()
    plain.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(model(images)[0], plain(images)[0])
