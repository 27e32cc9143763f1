"""Stages that are computed again in the backward pass: the same bits, less kept."""

from typing import Any

import pytest
import torch
from torch import is_tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from detkit.build import build_backbone

# One a kind of block: residual, shuffled, branched; dense has a test of its own.
FAST = ("resnet18", "shufflenet_v2", "squeezenet1_1")
SLOW = ("vgg16", "inception_v1", "inception_v3", "detnet59", "mobilenet_v2", "efficientnet_lite0")


class Memory(TorchDispatchMode):
    """Counts the bytes of the tensors that operators make while it is entered, as long as anything holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    @property
    def alive(self) -> int:
        self.made = {key: entry for key, entry in self.made.items() if not entry[0].expired()}
        return sum(size for _, size in self.made.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if is_tensor(tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if is_tensor(tensor) and tensor.untyped_storage()._cdata not in before:
                reference = StorageWeakRef(tensor.untyped_storage())
                self.made[reference.cdata] = (reference, tensor.untyped_storage().nbytes())
        self.peak = max(self.peak, self.alive)
        return result


def backward(name: str, checkpointing: bool, **options: Any) -> tuple[nn.Module, int, int]:
    """A net after the backward passes of two batches; bytes that the second forward pass kept, and its step's peak."""
    torch.manual_seed(0)
    model = build_backbone(name, checkpointing=checkpointing, **options).train()
    for seed in (1, 2):
        images = torch.randn(2, 3, 65, 79, generator=torch.Generator().manual_seed(seed))
        torch.manual_seed(seed)
        with Memory() as memory:
            loss = torch.stack([level.square().mean() for level in model(images)]).sum()
            kept = memory.alive
            loss.backward()
    return model, kept, memory.peak


def assert_same(ours: nn.Module, plain: nn.Module) -> None:
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad), name
    for name, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_gradients_and_statistics_are_the_same_bits_with_less_kept(name: str) -> None:
    plain, whole, peak = backward(name, False)
    ours, kept, low_peak = backward(name, True)
    assert_same(ours, plain)
    assert kept < whole / 2
    assert low_peak < peak


def test_both_ways_of_a_densenet_together() -> None:
    plain, whole, peak = backward("densenet121", False)
    ours, kept, low_peak = backward("densenet121", True, memory_efficient=True)
    assert_same(ours, plain)
    assert kept < whole / 10
    assert low_peak < peak / 3  # 0.35 without memory_efficient


@pytest.mark.parametrize("frozen", [0, 2])
def test_what_is_kept_of_a_resnet18(frozen: int) -> None:
    """Outputs of its stages for pictures of 64 px: 64 x 16^2 twice, 128 x 8^2, 256 x 4^2, 512 x 2^2 floats."""
    torch.manual_seed(0)
    model = build_backbone("resnet18", checkpointing=True, frozen_stages=frozen).train()
    images = torch.randn(1, 3, 64, 64)
    sizes = [4 * n for n in (64 * 16 * 16, 64 * 16 * 16, 128 * 8 * 8, 256 * 4 * 4, 512 * 2 * 2)]
    with Memory() as memory:
        levels = model(images)
        del levels[:-1]
        assert memory.alive == sum(sizes[max(frozen - 1, 0) :])
    assert levels[-1].requires_grad


def test_where_there_are_no_stages_it_is_refused() -> None:
    with pytest.raises(ValueError, match="checkpointing=true: timm/resnet18 has no stages"):
        build_backbone("timm/resnet18", checkpointing=True)
