"""Backbones, classifiers and detectors from a config."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

from detkit.backbones import BACKBONES, CLASSIFIERS
from detkit.backbones.timm import build_timm
from detkit.build.conventions import convention_warnings
from detkit.config import BackboneConfig, ModelConfig, RoIHeadConfig, RPNConfig
from detkit.convolution import lacks_fast_kernels, speed_up
from detkit.models.anchors import AnchorGenerator
from detkit.models.faster_rcnn import FasterRCNN
from detkit.models.fpn import FPN
from detkit.models.matching import Matcher
from detkit.models.roi_head import BoxHead, LevelPooler, RoIHead
from detkit.models.rpn import RPN, ProposalCounts, RPNHead
from detkit.norm import set_norm_eps
from detkit.pretrained import backbone_state
from detkit.weights import LoadReport, load_backbone_weights, read_state

Net = TypeVar("Net", bound=nn.Module)

# Keys of model.backbone that are arguments of the nets, too.
OWN_KEYS = ("frozen_stages", "norm", "padding", "stride_in_1x1", "weights")


def build_backbone(
    name: str,
    *,
    norm: str = "default",
    frozen_stages: int = 0,
    padding: str = "centred",
    checkpointing: bool = False,
    weights: str | None = None,
    on_loaded: Callable[[LoadReport], None] | None = None,
    **options: Any,
) -> nn.Module:
    """A backbone by its name in `BACKBONES`, or `timm/NAME`, with `channels`, `strides` and forward(images) -> levels.

    `norm`: `default` is the net's own. `padding`: `centred` puts cell i where stride * i says, `reference` is the
    published layout. `checkpointing`: training takes less memory and more time. `weights`: None, `imagenet`,
    `pip:efficientnet-lite0` or a path. `options`: the net's own, such as groups. `on_loaded` is told what became of the
    weights' tensors. Raises ValueError for an unknown name or option, and where weights do not fit.
    """
    if name.startswith("timm/"):
        _refuse_options(name, options, ())
        if checkpointing:
            raise ValueError(f"model.backbone.checkpointing=true: {name} has no stages to make again; set it to false")
        return _timm_backbone(name, "batch" if norm == "default" else norm, frozen_stages, weights, on_loaded)
    backbone = _construct(
        BACKBONES, name, {"norm": norm, "frozen_stages": frozen_stages, "padding": padding, **options}
    )
    backbone.checkpointing = checkpointing  # type: ignore[assignment]
    if weights is not None:
        report = load_backbone_weights(backbone, name, backbone_state(name, weights), weights)
        if on_loaded is not None:
            on_loaded(report)
    return backbone


def _timm_backbone(
    name: str, norm: str, frozen_stages: int, weights: str | None, on_loaded: Callable[[LoadReport], None] | None
) -> nn.Module:
    """timm's model with its own published weights (`imagenet`), those of a file, or none."""
    backbone = build_timm(name, norm=norm, frozen_stages=frozen_stages, pretrained=weights == "imagenet")
    if weights is not None and weights != "imagenet":
        stored = {key.removeprefix("backbone.").removeprefix("body."): v for key, v in read_state(weights).items()}
        state = backbone.own_names(stored)
        report = load_backbone_weights(backbone.body, name, state, weights)
        if on_loaded is not None:
            on_loaded(report)
    return backbone


def build_classifier(name: str, num_classes: int = 1000, **options: Any) -> nn.Module:
    """The classifier of a backbone's paper: forward(normalised images) -> logits (B, num_classes).

    Nets with auxiliary classifiers return (logits, auxiliary logits ...) in training mode. `options` are those of
    `build_backbone`; `padding` is `reference` here. Raises ValueError for an unknown name or option.
    """
    if num_classes < 1:
        raise ValueError(f"expected a classifier of at least one class, got num_classes={num_classes}")
    return _construct(CLASSIFIERS, name, {"num_classes": num_classes, **options})


def _construct(family: Mapping[str, Callable[..., nn.Module]], name: str, options: dict[str, Any]) -> nn.Module:
    if name not in family:
        near = difflib.get_close_matches(name, family, n=1)
        hint = f"did you mean {near[0]}? The" if near else "the"
        raise ValueError(f"unknown backbone {name!r}: {hint} names are {', '.join(family)}, or timm/NAME")
    accepted: dict[str, inspect.Parameter] = {}
    for kind in (BACKBONES[name],) if family is BACKBONES else (BACKBONES[name], CLASSIFIERS[name]):
        accepted |= inspect.signature(kind).parameters
    for option in ("options", "depth", "version"):  # the name of the backbone says the last two
        accepted.pop(option, None)
    _refuse_options(name, options, sorted(accepted))
    if options.get("norm") == "default":
        options = {key: value for key, value in options.items() if key != "norm"}
    return family[name](**{key: _checked(name, key, value, accepted[key]) for key, value in options.items()})


def _refuse_options(name: str, options: Mapping[str, Any], accepted: Sequence[str]) -> None:
    unknown = [option for option in options if option not in accepted]
    if unknown:
        known = ", ".join(option for option in accepted if option not in ("num_classes", *OWN_KEYS))
        raise ValueError(
            f"the backbone {name} has no option {', '.join(map(repr, unknown))} (model.backbone.options); "
            f"it has: {known or 'none'}"
        )


def _checked(name: str, option: str, value: Any, parameter: inspect.Parameter) -> Any:
    """The value of an option, which is what the constructor's signature says. Raises ValueError."""
    kind = TypeAdapter(parameter.annotation, config=ConfigDict(strict=True, allow_inf_nan=False))
    try:
        return kind.validate_python(tuple(value) if isinstance(value, list) else value)
    except ValidationError as error:
        raise ValueError(
            f"the option {option} of the backbone {name}: {error.errors()[0]['msg']}, got {value!r}"
        ) from None


def build_detector(
    config: ModelConfig,
    num_classes: int,
    pretrained: bool = True,
    on_loaded: Callable[[LoadReport], None] | None = None,
) -> FasterRCNN:
    """The detector of a config for labels [0, num_classes), in channels-last memory.

    `pretrained=False` leaves out the backbone's weights: a checkpoint that is loaded next brings its own. `on_loaded`
    is told what became of their tensors.
    """
    reports: list[LoadReport] = []
    backbone = _backbone(config.backbone, pretrained, reports.append)
    for report in reports:
        report.warnings = convention_warnings(config, backbone)
        if on_loaded is not None:
            on_loaded(report)
    if config.backbone.norm_eps is not None:
        set_norm_eps(backbone, config.backbone.norm_eps)
    channels: tuple[int, ...] = backbone.channels  # type: ignore[assignment]
    strides: tuple[int, ...] = backbone.strides  # type: ignore[assignment]
    neck = FPN(channels, strides, config.neck.out_channels, config.neck.norm, config.neck.extra_level)
    rpn = _rpn(config.rpn, neck)
    roi_head = _roi_head(config, neck.channels[0], strides, num_classes)
    model = FasterRCNN(backbone, neck, rpn, roi_head, config.pixel_mean, config.pixel_std, config.size_multiple)
    return laid_out(model, config.fast_convolutions)


def laid_out(model: Net, fast_convolutions: bool) -> Net:
    """The net in channels-last memory, if wanted with the convolutions that are fastest there on this processor."""
    if fast_convolutions and lacks_fast_kernels():
        speed_up(model)
    return model.to(memory_format=torch.channels_last)


def backbone_options(config: BackboneConfig) -> dict[str, Any]:
    """What the config sets beyond the options that all backbones have.

    Raises ValueError for options that have a key of their own.
    """
    for option in OWN_KEYS:
        if option in config.options:
            raise ValueError(f"model.backbone.options.{option}: set model.backbone.{option} instead")
    if "num_classes" in config.options:
        raise ValueError("model.backbone.options.num_classes: the number of classes comes from the data")
    chosen = {} if config.stride_in_1x1 is None else {"stride_in_1x1": config.stride_in_1x1}
    return {**config.options, **chosen}


def _backbone(config: BackboneConfig, pretrained: bool, on_loaded: Callable[[LoadReport], None]) -> nn.Module:
    return build_backbone(
        config.name,
        norm=config.norm,
        frozen_stages=config.frozen_stages,
        padding=config.padding,
        checkpointing=config.checkpointing,
        weights=config.weights if pretrained else None,
        on_loaded=on_loaded,
        **backbone_options(config),
    )


def _rpn(config: RPNConfig, neck: FPN) -> RPN:
    anchors = AnchorGenerator(neck.strides, config.anchor_sizes, config.anchor_ratios, config.round_anchors)
    return RPN(
        RPNHead(neck.channels[0], anchors.per_cell, config.convs),
        anchors,
        Matcher(config.positive_iou, config.negative_iou, keep_best=True),
        train_counts=ProposalCounts(config.pre_nms_train, config.post_nms_train),
        test_counts=ProposalCounts(config.pre_nms_test, config.post_nms_test),
        samples=config.samples,
        positive_fraction=config.positive_fraction,
        nms_iou=config.nms_iou,
        min_size=config.min_size,
        sigmoid=config.sigmoid,
        box_loss=config.box_loss,
        smooth_l1_beta=config.smooth_l1_beta,
        box_loss_weight=config.box_loss_weight,
    )


def _roi_head(model: ModelConfig, channels: int, strides: tuple[int, ...], num_classes: int) -> RoIHead:
    config = model.roi_head
    return RoIHead(
        LevelPooler(strides, config.canonical_size, config.pool_size, config.sampling_ratio, config.aligned),
        _box_head(config, channels, num_classes),
        Matcher(config.positive_iou, config.positive_iou, keep_best=False),
        samples=config.samples,
        positive_fraction=config.positive_fraction,
        box_weights=config.box_weights,
        box_loss=config.box_loss,
        smooth_l1_beta=config.smooth_l1_beta,
        box_loss_weight=config.box_loss_weight,
        score_threshold=model.score_threshold,
        nms_iou=model.nms_iou,
        max_detections=model.max_detections,
        min_size=config.min_size,
    )


def _box_head(config: RoIHeadConfig, channels: int, num_classes: int) -> BoxHead:
    return BoxHead(
        channels,
        config.pool_size,
        num_classes,
        convs=config.convs,
        conv_channels=config.conv_channels,
        linears=config.linears,
        width=config.width,
        norm=config.norm,
        class_agnostic=config.class_agnostic,
        init=config.init,
    )
