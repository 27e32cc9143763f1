"""Normalisation layers by name, and folding them into the convolutions before them."""

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

Model = TypeVar("Model", bound=nn.Module)
BatchNorms = (nn.BatchNorm2d, FrozenBatchNorm2d)


def make_norm(kind: str, channels: int, eps: float = 1e-5) -> nn.Module:
    """A layer for (B, channels, H, W): batch, frozen, group, sync or none. Raises ValueError for another name."""
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps=eps)
    if kind == "frozen":
        return FrozenBatchNorm2d(channels, eps=eps)
    if kind == "group":
        return nn.GroupNorm(_groups(channels), channels, eps=eps)
    if kind == "sync":
        return nn.SyncBatchNorm(channels, eps=eps)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"expected a norm out of batch, frozen, group, sync, none, got {kind!r}")


def set_norm_eps(model: nn.Module, eps: float) -> None:
    """Set what the batch norms of a model add to the variance; weights from elsewhere may need another than ours."""
    for module in model.modules():
        if isinstance(module, (*BatchNorms, nn.SyncBatchNorm)):
            module.eps = eps


def norm_eps(model: nn.Module) -> float | None:
    """What the first batch norm of a model adds to the variance; None without any."""
    kinds = (*BatchNorms, nn.SyncBatchNorm)
    return next((module.eps for module in model.modules() if isinstance(module, kinds)), None)


def _groups(channels: int) -> int:
    """32 groups (Group Normalization, section 4), or the largest smaller power of two that divides the channels."""
    groups = 32
    while channels % groups:
        groups //= 2
    return groups


def fold_norm(model: Model) -> Model:
    """A copy of the model for inference whose batch norms are part of the convolutions before them.

    Folds each batch norm that is the next child after a convolution in the same module; parts of detkit register
    their layers in the order in which they run. Modules with `foldable = False` stay as they are: in other libraries'
    nets a norm may hold an activation, or layers run in another order. The result computes the same up to rounding, in
    eval mode only.
    """
    folded = copy.deepcopy(model).eval()
    kept = {part for module in folded.modules() if not getattr(module, "foldable", True) for part in module.modules()}
    for module in [module for module in folded.modules() if module not in kept]:
        for (_, conv), (name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNorms):
                _fold(conv, norm)
                setattr(module, name, nn.Identity())
    return folded


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> None:
    mean, var = norm.running_mean, norm.running_var
    assert isinstance(mean, Tensor) and isinstance(var, Tensor)
    scale = norm.weight / (var + norm.eps).sqrt()
    bias = torch.zeros_like(mean) if conv.bias is None else conv.bias
    weight = conv.weight * scale[:, None, None, None]
    layout = torch.channels_last if conv.weight.is_contiguous(memory_format=torch.channels_last) else None
    conv.weight = nn.Parameter(weight.contiguous(memory_format=layout or torch.contiguous_format), requires_grad=False)
    conv.bias = nn.Parameter((bias - mean) * scale + norm.bias, requires_grad=False)
