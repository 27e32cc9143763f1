"""AlexNet: torchvision's names and numbers, where its cells lie, and the paper's local response norm by hand."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detkit.backbones.alexnet import AlexNet, AlexNetClassifier, response_norm
from tests.reference import assert_same, outputs_at, real_batch


def test_logits_and_taps_are_torchvisions(real_data: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.alexnet(weights=None).eval()
    state = theirs.state_dict()
    with torch.device("meta"):
        classifier = AlexNetClassifier().eval()
    classifier.load_state_dict(state, strict=True, assign=True)
    backbone = AlexNet(padding="reference").eval()
    backbone.load_state_dict({key: value for key, value in state.items() if not key.startswith("classifier.")})
    images = real_batch(real_data)
    expected, taps = outputs_at(theirs, ["features.1", "features.4", "features.11"], images)
    with torch.no_grad():
        assert_same(classifier(images), expected)
        for level, tap in zip(backbone(images), taps, strict=True):
            assert_same(level, tap)


def test_layers_are_those_of_one_column() -> None:
    # One weird trick, section 5: 64, 192, 384, 256, 256 filters, then 4096, 4096, 1000 units; sides are torchvision's
    rows, units = [], []

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            rows.append((layer.kernel_size[0], layer.stride[0], layer.groups, layer.out_channels, output.shape[-1]))
        else:
            units.append(output.shape[-1])

    with torch.device("meta"):
        model = AlexNetClassifier().eval()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(note)
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 224, 224))
    assert rows == [(11, 4, 1, 64, 55), (5, 1, 1, 192, 27), (3, 1, 1, 384, 13), (3, 1, 1, 256, 13), (3, 1, 1, 256, 13)]
    assert units == [4096, 4096, 1000]
    assert sum(parameter.numel() for parameter in model.parameters()) == 61_100_840
    # e.g. the first convolution: 55 * 55 * 64 * 363 = 70 M
    assert counter.get_total_flops() / 2 == 714_188_480


def test_cells_lie_around_the_pixel_that_their_stride_says() -> None:
    """A dot with uniform weights is as strong in all the cells that see it equally often: their middle is its cell."""
    model = AlexNet().eval()
    for convolution in model.features:
        if isinstance(convolution, nn.Conv2d):
            nn.init.constant_(convolution.weight, 1.0 / convolution.weight[0].numel())
    images = torch.zeros(1, 3, 320, 352)
    images[..., 160, 192] = 1.0
    with torch.no_grad():
        for level, stride in zip(model(images), model.strides, strict=True):
            total = level[0].double().sum(0)
            strongest = (total >= total.max() * (1 - 1e-5)).nonzero().double()
            assert strongest.mean(0).tolist() == [160 / stride, 192 / stride]


def test_response_norm_is_the_papers() -> None:
    # Krizhevsky et al., 2012, section 3.3: a / (k + alpha * sum of a^2 over n channels)^beta,
    # k = 2, n = 5, alpha = 1e-4, beta = 0.75; the sum ends at the first and the last channel
    values = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0, 60.0])[None, :, None, None]
    sums = [
        100 + 400 + 900,  # channels 0 to 2
        100 + 400 + 900 + 1600,  # 0 to 3
        100 + 400 + 900 + 1600 + 2500,  # 0 to 4
        400 + 900 + 1600 + 2500 + 3600,  # 1 to 5
        900 + 1600 + 2500 + 3600,  # 2 to 5
        1600 + 2500 + 3600,  # 3 to 5
    ]
    expected = [a / (2 + 1e-4 * total) ** 0.75 for a, total in zip(range(10, 70, 10), sums, strict=True)]
    assert response_norm()(values).flatten().tolist() == pytest.approx(expected, rel=1e-5)
    # 10 / 2.14^0.75: the square root of 2.14 is 1.46287, that of this 1.20949, their product 1.76934
    assert expected[0] == pytest.approx(10 / 1.76934, rel=1e-5)


def test_response_norm_follows_the_first_and_the_second_relu(real_data: Path) -> None:
    torch.manual_seed(0)
    plain, normed = AlexNet().eval(), AlexNet(lrn=True).eval()
    normed.load_state_dict(plain.state_dict())  # the norm has no weights
    images = real_batch(real_data, 64, 96)
    norm = response_norm()
    with torch.no_grad():
        first = norm(plain.features[:2](images))
        second = norm(plain.features[2:5](first))
        expected = [first, second, plain.features[5:](second)]
        for level, own in zip(normed(images), expected, strict=True):
            assert_same(level, own)
        assert not torch.allclose(normed(images)[0], plain(images)[0], rtol=1e-2)


def test_a_norm_that_alexnet_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="norm=batch: AlexNet can have none alone"):
        AlexNet(norm="batch")
    with pytest.raises(ValueError, match="centred or reference, got 'same'"):
        AlexNet(padding="same")  # type: ignore[arg-type]
