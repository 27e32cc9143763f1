"""DenseNet: torchvision's names and numbers, and the memory-efficient form, which computes the same with less kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detkit.backbones.densenet import DenseBlock, DenseNet, DenseNetClassifier
from tests.reference import assert_same, outputs_at, randomise_norms, real_batch

TAPS = [*(f"features.transition{number}.relu" for number in (1, 2, 3)), "features.norm5"]
CHANNELS = {121: (256, 512, 1024, 1024), 169: (256, 512, 1280, 1664), 201: (256, 512, 1792, 1920)}


@pytest.mark.parametrize("depth", CHANNELS)
def test_logits_and_taps_are_torchvisions(depth: int, real_data: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(f"densenet{depth}", weights=None).eval()
    randomise_norms(theirs)
    state = theirs.state_dict()
    classifier = DenseNetClassifier(depth).eval()
    classifier.load_state_dict(state, strict=True)
    backbone = DenseNet(depth, padding="reference").eval()
    assert backbone.channels == CHANNELS[depth]
    assert backbone.strides == (4, 8, 16, 32)
    backbone.load_state_dict({name: value for name, value in state.items() if not name.startswith("classifier.")})
    images = real_batch(real_data)
    expected, taps = outputs_at(theirs, TAPS, images)
    taps[-1].relu_()  # theirs is a function call, which no hook sees
    with torch.no_grad():
        assert_same(classifier(images), expected)
        for level, tap in zip(backbone(images), taps, strict=True):
            assert_same(level, tap)


def build(memory_efficient: bool, **options: Any) -> DenseNet:
    torch.manual_seed(0)
    model = DenseNet(121, memory_efficient=memory_efficient, **options)
    randomise_norms(model)
    model.train()
    return model


def build_block(memory_efficient: bool, inputs: int, layers: int) -> DenseBlock:
    torch.manual_seed(0)
    block = DenseBlock(inputs, layers, "batch", memory_efficient)
    randomise_norms(block)
    return block


def loss(model: DenseNet) -> Tensor:
    images = torch.randn(2, 3, 33, 47, generator=torch.Generator().manual_seed(1))
    return torch.stack([level.square().mean() for level in model(images)]).sum()


def assert_same_training(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, mine), parameter in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None and parameter.grad is not None
        assert torch.equal(mine.grad, parameter.grad), name
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_memory_efficient_has_the_same_gradients_and_statistics() -> None:
    plain, efficient = build(False), build(True)
    for model in (plain, efficient):
        loss(model).backward()
    assert_same_training(efficient, plain)
    assert int(efficient.get_buffer("features.denseblock4.denselayer16.norm1.num_batches_tracked")) == 1


@pytest.mark.parametrize("momentum", [0.1, None])
def test_no_second_pass_counts(momentum: float | None) -> None:
    # None: the mean of all batches so far, which needs their number
    plain, efficient = build_block(False, 8, 3), build_block(True, 8, 3)
    before = plain.get_buffer("denselayer1.norm1.running_mean").clone()
    for block in (plain, efficient):
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
        for seed in (1, 2):
            x = torch.randn(2, 8, 5, 7, generator=torch.Generator().manual_seed(seed))
            result = block(x).square().mean()
            result.backward(retain_graph=True)
            result.backward()  # makes the joined maps once more
    assert_same_training(efficient, plain)
    assert int(efficient.get_buffer("denselayer1.norm1.num_batches_tracked")) == 2
    assert not torch.equal(efficient.get_buffer("denselayer1.norm1.running_mean"), before)


def test_memory_efficient_keeps_neither_the_joined_maps_nor_their_norm() -> None:
    """Four layers with C = 512, 544, 576, 608: plain keeps C joined, C normed, 128, and 128 normed of each.

    Memory-efficient only the last two, and what all four read, once: 512 + 3 * 32 maps. Statistics are a trifle.
    """

    def kept(block: DenseBlock) -> int:
        sizes: dict[int, int] = {}
        known = {value.untyped_storage().data_ptr() for value in block.state_dict().values()}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = block(torch.ones(1, 512, 16, 16))
        assert result.requires_grad
        return sum(size for pointer, size in sizes.items() if pointer not in known)

    plain, efficient = kept(build_block(False, 512, 4)), kept(build_block(True, 512, 4))
    value = 4 * 16 * 16  # bytes of a channel
    assert plain == pytest.approx((2 * (512 + 544 + 576 + 608) + 4 * 256) * value, rel=0.02)
    assert efficient == pytest.approx((4 * 256 + 608) * value, rel=0.02)


def test_memory_efficient_in_eval_mode_with_frozen_stages_and_without_gradients() -> None:
    model, plain = build(True, frozen_stages=3), build(False, frozen_stages=3)
    loss(model).backward()
    assert model.get_parameter("features.denseblock2.denselayer1.norm1.weight").grad is None
    assert model.get_parameter("features.denseblock3.denselayer1.norm1.weight").grad is not None
    model.eval()
    plain.load_state_dict(model.state_dict())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    loss(model).backward()
    with torch.no_grad():
        assert torch.equal(loss(model), loss(plain.eval()))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_without_norm_the_activations_keep_their_size() -> None:
    torch.manual_seed(0)
    model = DenseNet(121, norm="none").eval()
    with torch.no_grad():
        levels = model(torch.randn(1, 3, 96, 96))
    assert all(0.1 < float(level.std()) < 10 for level in levels)
    assert all(conv.bias is not None for conv in model.modules() if isinstance(conv, nn.Conv2d))


def test_an_unknown_depth_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="DenseNet of 121, 169, 201 layers, got 161"):
        DenseNet(161)
