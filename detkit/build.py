"""The only place where a config becomes objects."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detkit.backbones import BACKBONES, CLASSIFIERS
from detkit.backbones.timm import build_timm
from detkit.config import BackboneConfig, Config, DataConfig, ModelConfig, RoIHeadConfig, RPNConfig, TrainConfig
from detkit.data.coco import CocoIndex, load_coco
from detkit.data.dataset import DetectionDataset
from detkit.data.layout import Split, find_split
from detkit.data.loader import EpochLoader
from detkit.data.resize import median_short_side
from detkit.data.shapes import ensure_shapes
from detkit.data.transforms import build_transform
from detkit.engine.schedule import build_optimizer, build_scheduler, epoch_steps, scaled_lr, total_steps
from detkit.engine.step import Precision
from detkit.engine.train import Evaluate, Loader, Trainer
from detkit.models.anchors import AnchorGenerator
from detkit.models.faster_rcnn import FasterRCNN
from detkit.models.fpn import FPN
from detkit.models.matching import Matcher
from detkit.models.roi_head import BoxHead, LevelPooler, RoIHead
from detkit.models.rpn import RPN, ProposalCounts, RPNHead
from detkit.norm import set_norm_eps
from detkit.pretrained import backbone_state
from detkit.weights import LoadReport, load_backbone_weights


def build_backbone(
    name: str,
    *,
    norm: str = "default",
    frozen_stages: int = 0,
    padding: str = "centred",
    weights: str | None = None,
    on_loaded: Callable[[LoadReport], None] | None = None,
    **options: Any,
) -> nn.Module:
    """A backbone by its name in `BACKBONES`, or `timm/NAME`, with `channels`, `strides` and forward(images) -> levels.

    `norm`: `default` is the net's own. `padding`: `centred` puts cell i where stride * i says, `reference` is the
    published layout. `weights`: None, `imagenet`, `pip:efficientnet-lite0` or a path. `options`: the net's own, such as
    groups. `on_loaded` is told what became of the weights' tensors. Raises ValueError for an unknown name or option,
    and where weights do not fit.
    """
    if name.startswith("timm/"):
        _refuse_options(name, options, ())
        return build_timm(
            name.removeprefix("timm/"), norm=norm, frozen_stages=frozen_stages, pretrained=weights is not None
        )
    chosen = {"frozen_stages": frozen_stages, "padding": padding, **options}
    if norm != "default":
        chosen["norm"] = norm
    backbone = _construct(BACKBONES, name, chosen)
    if weights is not None:
        report = load_backbone_weights(backbone, name, backbone_state(name, weights), weights)
        if on_loaded is not None:
            on_loaded(report)
    return backbone


def build_classifier(name: str, num_classes: int = 1000, **options: Any) -> nn.Module:
    """The classifier of a backbone's paper: forward(normalised images) -> logits (B, num_classes).

    Nets with auxiliary classifiers return (logits, auxiliary logits ...) in training mode. `options` are those of
    `build_backbone`; `padding` is `reference` here. Raises ValueError for an unknown name or option.
    """
    return _construct(CLASSIFIERS, name, {"num_classes": num_classes, **options})


def _construct(family: Mapping[str, Callable[..., nn.Module]], name: str, options: dict[str, Any]) -> nn.Module:
    if name not in family:
        near = difflib.get_close_matches(name, family, n=1)
        hint = f"did you mean {near[0]}? The" if near else "the"
        raise ValueError(f"unknown backbone {name!r}: {hint} names are {', '.join(family)}, or timm/NAME")
    accepted: set[str] = set()
    for kind in (BACKBONES[name], CLASSIFIERS[name]):
        accepted |= set(inspect.signature(kind).parameters)
    _refuse_options(name, options, sorted(accepted - {"options", "depth"}))
    return family[name](**options)


def _refuse_options(name: str, options: Mapping[str, Any], accepted: Sequence[str]) -> None:
    unknown = [option for option in options if option not in accepted]
    if unknown:
        known = ", ".join(option for option in accepted if option not in ("num_classes", "norm", "frozen_stages"))
        raise ValueError(
            f"the backbone {name} has no option {', '.join(map(repr, unknown))} (model.backbone.options); "
            f"it has: {known or 'none'}"
        )


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
    backbone = _backbone(config.backbone, pretrained, on_loaded)
    channels: tuple[int, ...] = backbone.channels  # type: ignore[assignment]
    strides: tuple[int, ...] = backbone.strides  # type: ignore[assignment]
    neck = FPN(channels, strides, config.neck.out_channels, config.neck.norm, config.neck.extra_level)
    rpn = _rpn(config.rpn, neck)
    roi_head = _roi_head(config, neck.channels[0], strides, num_classes)
    model = FasterRCNN(backbone, neck, rpn, roi_head, config.pixel_mean, config.pixel_std, config.size_multiple)
    return model.to(memory_format=torch.channels_last)


def backbone_options(config: BackboneConfig) -> dict[str, Any]:
    """What the config sets beyond the options that all backbones have."""
    chosen = {} if config.stride_in_1x1 is None else {"stride_in_1x1": config.stride_in_1x1}
    return {**config.options, **chosen}


def _backbone(config: BackboneConfig, pretrained: bool, on_loaded: Callable[[LoadReport], None] | None) -> nn.Module:
    backbone = build_backbone(
        config.name,
        norm=config.norm,
        frozen_stages=config.frozen_stages,
        padding=config.padding,
        weights=config.weights if pretrained else None,
        on_loaded=on_loaded,
        **backbone_options(config),
    )
    if config.norm_eps is not None:
        set_norm_eps(backbone, config.norm_eps)
    return backbone


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
    )


@dataclass(frozen=True)
class TrainingData:
    """Both splits of a data set as a config describes it; `short_side` in pixels, with `auto` settled."""

    train: CocoIndex
    val: CocoIndex
    short_side: int


def build_data(config: DataConfig, progress: Callable[[int, int], None] | None = None) -> TrainingData:
    """Find, read and check the annotations of both splits. Validation categories are matched to training's by name.

    `root="shapes"` draws that set into data/shapes first, unless it is there; `progress` then gets (pictures done, of
    all). Raises ValueError that lists what is wrong.
    """
    root = _root(config, progress)
    train = find_split(root, "train", config.train_annotations, config.train_images)
    val = find_split(root, "val", config.val_annotations, config.val_images)
    index = load_coco(
        train.annotations,
        train.images,
        classes=config.classes,
        on_bad=config.on_bad,
        limit=config.limit,
        keep_empty=config.keep_empty,
    )
    absent = [name for name, number in zip(index.classes, index.category_ids, strict=True) if number is None]
    if absent:
        raise ValueError(f"data.classes: {train.annotations} has no category {', '.join(map(repr, absent))}")
    short_side = config.short_side
    if short_side == "auto":
        short_side = median_short_side(index.heights, index.widths)
    return TrainingData(index, _load_val(config, val, index.classes), short_side)


def build_val_data(config: DataConfig, classes: Sequence[str]) -> CocoIndex:
    """The validation split alone, for a detector of the given classes."""
    return _load_val(config, find_split(_root(config), "val", config.val_annotations, config.val_images), classes)


def _root(config: DataConfig, progress: Callable[[int, int], None] | None = None) -> Path:
    if config.root == "shapes":
        return ensure_shapes(Path("data/shapes"), progress)
    return Path(config.root).expanduser()


def _load_val(config: DataConfig, split: Split, classes: Sequence[str]) -> CocoIndex:
    return load_coco(split.annotations, split.images, classes=classes, on_bad=config.on_bad, limit=config.limit)


def build_train_loader(config: Config, data: TrainingData, device: torch.device) -> EpochLoader:
    """Shuffled and augmented batches of the training split."""
    options = config.data
    short_sides = [max(round(data.short_side * scale), 1) for scale in options.train_scales]
    transform = build_transform(options.flip, options.vertical_flip, options.colour, options.crop)
    dataset = DetectionDataset(data.train, short_sides, options.long_side, options.resize, transform, config.train.seed)
    return EpochLoader(
        dataset,
        config.train.batch_size,
        shuffle=True,
        seed=config.train.seed,
        workers=options.workers,
        group_by_aspect=options.group_by_aspect,
        drop_last=True,
        skip_unreadable=options.on_bad == "drop",
        pin_memory=device.type == "cuda",
    )


def build_val_loader(config: DataConfig, index: CocoIndex, short_side: int, batch_size: int) -> EpochLoader:
    """The validation pictures in batches, each exactly once, as they are."""
    dataset = DetectionDataset(index, [short_side], config.long_side, config.resize)
    return EpochLoader(dataset, batch_size, shuffle=False, workers=config.workers)


def build_trainer(
    options: TrainConfig,
    model: nn.Module,
    loader: Loader,
    folder: Path,
    checkpoint_extra: dict[str, Any],
    evaluate: Evaluate,
    resume: dict[str, Any] | None,
    precision: Precision,
    best_metric: str = "AP",
) -> Trainer:
    """The training loop with optimizer and schedule; the model is on its device already."""
    device = next(model.parameters()).device
    steps = total_steps(loader.steps_per_epoch, options.accumulate, options.epochs, options.iterations)
    decay_steps = round(options.decay_epochs * epoch_steps(loader.steps_per_epoch, options.accumulate))
    optimizer, scheduler = _optimizer_and_schedule(options, model, steps, decay_steps)
    return Trainer(
        model=model,
        loader=loader,
        optimizer=optimizer,
        scheduler=scheduler,
        folder=folder,
        steps=steps,
        checkpoint_extra=checkpoint_extra,
        seed=options.seed,
        device=device,
        precision=precision,
        accumulate=options.accumulate,
        clip_norm=options.clip_norm,
        ema_decay=options.ema_decay,
        evaluate=evaluate,
        eval_every=options.eval_every,
        best_metric=best_metric,
        save_every=options.save_every,
        checkpoint_minutes=options.checkpoint_minutes,
        log_every=options.log_every,
        resume=resume,
    )


def _optimizer_and_schedule(
    options: TrainConfig, model: nn.Module, steps: int, decay_steps: int
) -> tuple[Optimizer, LRScheduler]:
    optimizer = build_optimizer(
        model,
        options.optimizer,
        scaled_lr(options.lr, options.batch_size, options.accumulate),
        options.weight_decay,
        options.momentum,
        options.backbone_lr_factor,
        nesterov=options.nesterov,
        alpha=options.alpha,
        eps=options.eps,
    )
    scheduler = build_scheduler(
        optimizer,
        options.schedule,
        steps,
        options.warmup_steps,
        options.warmup_factor,
        options.milestones,
        options.gamma,
        decay_steps,
    )
    return optimizer, scheduler


def choose_device(name: str) -> torch.device:
    """`auto`: a GPU where torch sees one, else the CPU. Raises ValueError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"device {name!r} cannot be used here: {reason}; use auto or cpu") from None
    return device


def choose_precision(name: str, device: torch.device) -> tuple[Precision, str]:
    """The precision to compute in, and why. `auto`: bfloat16 where the processor multiplies in it, else float32."""
    if name not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f"expected precision auto, float32, bfloat16 or float16, got {name!r}")
    if name != "auto":
        return cast(Precision, name), "as asked"
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and _has_bf16_instructions()
    return ("bfloat16", "it has bfloat16 instructions") if fast else ("float32", "it has no bfloat16 instructions")


def _has_bf16_instructions() -> bool:
    """oneDNN runs bfloat16 on any AVX-512 processor, but far slower than float32 where it must emulate it."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16"))
