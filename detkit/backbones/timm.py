"""Any model of timm that gives features, as feature levels for FPN: `model.backbone.name="timm/convnext_tiny"`.

Levels: the last tap of each stride >= 4, with timm's channels. timm is an extra, `pip install 'detkit[timm]'`, and is
imported when such a backbone is built. B pictures, H x W pixels.

Cells: a level has ceil(size / stride) cells. Where a model rounds down (patches, as in ConvNeXt), pictures are padded
with zeros at the right and the bottom and the levels are cut. Where in its stride a cell lies is as timm made it: the
middle of a patch is half a stride to the right and down of where detkit's own backbones have it.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkit.backbones.base import check_norm, check_size

# Odd sizes, at which rounding down shows at every stride; the first is the smallest that backbones take.
PROBES = ((33, 47), (65, 97))
# Transformers have positions for one size, unless they are asked to interpolate them.
OPTIONS: tuple[dict[str, Any], ...] = ({}, {"dynamic_img_size": True})


class TimmBackbone(nn.Module):
    """The levels of timm's model `name`; `channels` and `strides` are finest first.

    `norm`: batch leaves the model's norms as they are, frozen makes every batch norm a constant. Raises ValueError for
    a name that timm does not know, and for models that have no features or take pictures of one size only.
    """

    # timm does not register every layer in the order in which it runs, and some of its norms are activations too.
    foldable = False

    def __init__(self, name: str, *, norm: str = "batch", frozen_stages: int = 0, pretrained: bool = False) -> None:
        super().__init__()
        timm = _import_timm()
        name = name.removeprefix("timm/")
        _check_name(timm, name)
        check_norm(norm, ("batch", "frozen"), f"timm/{name}")
        if frozen_stages:
            raise ValueError(
                f"model.backbone.frozen_stages={frozen_stages}: timm/{name} has no stages to freeze; set it to 0"
            )
        plan = _plan(timm, name)
        self.channels, self.strides, self.multiple = plan.channels, plan.strides, plan.multiple
        self.body = _create(timm, name, plan.options, pretrained)
        if norm == "frozen":
            self.body = timm.layers.freeze_batch_norm_2d(self.body)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Pictures (B, 3, H, W), normalised, to levels (B, channels[i], ceil(H / strides[i]), ceil(W / strides[i])).

        Raises ValueError for pictures below 33 px a side.
        """
        check_size(images)
        levels = _run(self.body, images, self.multiple)
        sizes = _cells(images.shape[-2], images.shape[-1], self.strides)
        levels = [level[..., :rows, :columns] for level, (rows, columns) in zip(levels, sizes, strict=True)]
        if images.is_contiguous(memory_format=torch.channels_last):
            levels = [level.contiguous(memory_format=torch.channels_last) for level in levels]
        return levels

    def own_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of timm's whole model under the names that its tensors have in `body`.

        For features timm flattens or wraps the model: `stages.0.x` becomes `stages_0.x`, or `model.stages.0.x`. Names
        that `body` has already stay, and so do those of which it has none.
        """
        own = self.body.state_dict().keys()
        named = {}
        for key, value in state.items():
            ways = (key, key.replace(".", "_", 1), f"model.{key}", f"body.{key}")
            named[next((way for way in ways if way in own), key)] = value
        return named


def build_timm(name: str, *, norm: str = "batch", frozen_stages: int = 0, pretrained: bool = False) -> TimmBackbone:
    """The backbone `timm/NAME` (the prefix may be left out), `pretrained` with timm's own weights.

    Raises ValueError when timm is not installed, and where TimmBackbone does.
    """
    return TimmBackbone(name, norm=norm, frozen_stages=frozen_stages, pretrained=pretrained)


@dataclass(frozen=True)
class Plan:
    """How to build a model, what its levels are, and the multiple of pixels that pictures must be padded to."""

    options: dict[str, Any]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    multiple: int


def _plan(timm: ModuleType, name: str) -> Plan:
    """The first way to build the model in which its levels have the cells that strides say, tried without memory."""
    taps = _taps(timm, name)
    channels, strides = tuple(tap["num_chs"] for tap in taps), tuple(tap["reduction"] for tap in taps)
    reasons = []
    for extra in OPTIONS:
        options = {"out_indices": tuple(tap["index"] for tap in taps), **extra}
        try:
            with torch.device("meta"):
                body = timm.create_model(name, features_only=True, **options).eval()
        except Exception as error:  # each model of timm has its own way to refuse
            reasons.append(_first_line(error))
            continue
        for multiple in (1, math.lcm(*strides)):
            plan = Plan(options, channels, strides, multiple)
            reason = _misfit(body, plan)
            if reason is None:
                return plan
            reasons.append(reason)
    raise ValueError(
        f"timm/{name} cannot be a backbone, it does not take pictures of any size ({reasons[0].rstrip('.')}): "
        "take another, e.g. timm/resnet50 or timm/convnext_tiny"
    )


def _taps(timm: ModuleType, name: str) -> list[dict[str, Any]]:
    """timm's description (num_chs, reduction, index) of the last tap of each stride >= 4, finest first."""
    try:
        with torch.device("meta"):
            info = timm.create_model(name, features_only=True).feature_info.info
    except Exception as error:  # each model of timm has its own way to refuse
        raise ValueError(f"timm/{name} gives no feature levels: {_first_line(error)}") from None
    last = {tap["reduction"]: {**tap, "index": index} for index, tap in enumerate(info) if tap["reduction"] >= 4}
    if not last:
        raise ValueError(f"timm/{name} has no feature level of stride 4 or more")
    return list(last.values())


def _misfit(body: nn.Module, plan: Plan) -> str | None:
    """Why a model without memory cannot run by this plan; None: it can."""
    try:
        for height, width in PROBES:
            with torch.no_grad():
                levels = _run(body, torch.zeros(1, 3, height, width, device="meta"), plan.multiple)
            # of the padded picture: cutting must not hide that a model scales its pictures itself
            height, width = (math.ceil(side / plan.multiple) * plan.multiple for side in (height, width))
            cells = _cells(height, width, plan.strides)
            expected = [(channels, *cell) for channels, cell in zip(plan.channels, cells, strict=True)]
            got = [tuple(level.shape[1:]) for level in levels]
            if got != expected:
                return f"at {width} x {height} px its levels are {got} instead of {expected}"
    except Exception as error:  # each model of timm has its own way to refuse
        return _first_line(error)
    return None


def _run(body: nn.Module, images: Tensor, multiple: int) -> list[Tensor]:
    """The levels (B, C, H, W) of the model, for pictures that are padded to a multiple."""
    height, width = images.shape[-2:]
    if height % multiple or width % multiple:
        images = F.pad(images, (0, -width % multiple, 0, -height % multiple))
    levels: list[Tensor] = body(images)
    if str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC"):
        levels = [level.permute(0, 3, 1, 2) for level in levels]
    return levels


def _cells(height: int, width: int, strides: Sequence[int]) -> list[tuple[int, int]]:
    return [(math.ceil(height / stride), math.ceil(width / stride)) for stride in strides]


def _create(timm: ModuleType, name: str, options: dict[str, Any], pretrained: bool) -> nn.Module:
    if not pretrained:
        return timm.create_model(name, features_only=True, **options)
    try:
        return timm.create_model(name, pretrained=True, features_only=True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"cannot get the weights of timm/{name}: {_first_line(error)} - run it once with network (they are kept in "
            "the cache of the Hugging Face hub), or set model.backbone.weights=none"
        ) from error


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError:
        raise ValueError("backbones timm/... need timm: pip install 'detkit[timm]'") from None
    return timm


def _check_name(timm: ModuleType, name: str) -> None:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5)
        hint = f"did you mean {', '.join(f'timm/{other}' for other in near)}?" if near else "see timm.list_models()"
        raise ValueError(f"unknown backbone timm/{name}: {hint}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
