"""The only place where a config becomes objects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detkit.backbones import BACKBONES
from detkit.config import BackboneConfig, Config, DataConfig, ModelConfig, RoIHeadConfig, RPNConfig, TrainConfig
from detkit.data.coco import CocoIndex, load_coco
from detkit.data.dataset import DetectionDataset
from detkit.data.layout import Split, find_split
from detkit.data.loader import EpochLoader
from detkit.data.resize import median_short_side
from detkit.data.shapes import ensure_shapes
from detkit.data.transforms import build_transform
from detkit.engine.schedule import build_optimizer, build_scheduler, scaled_lr, total_steps
from detkit.engine.step import Precision
from detkit.engine.train import Evaluate, Trainer
from detkit.models.anchors import AnchorGenerator
from detkit.models.faster_rcnn import FasterRCNN
from detkit.models.fpn import FPN
from detkit.models.matching import Matcher
from detkit.models.roi_head import BoxHead, LevelPooler, RoIHead
from detkit.models.rpn import RPN, ProposalCounts, RPNHead
from detkit.weights import load_backbone_weights


def build_backbone(
    name: str,
    *,
    norm: str = "batch",
    frozen_stages: int = 0,
    stride_in_1x1: bool = False,
    weights: str | None = None,
) -> nn.Module:
    """A backbone by its name in `BACKBONES`, with `channels`, `strides` and forward(images) -> levels.

    `weights`: None, `imagenet` or a path. Raises ValueError for an unknown name, and where weights do not fit.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: the names are {', '.join(BACKBONES)}")
    backbone = BACKBONES[name](norm=norm, frozen_stages=frozen_stages, stride_in_1x1=stride_in_1x1)
    if weights is not None:
        load_backbone_weights(backbone, name, weights)
    return backbone


def build_detector(config: ModelConfig, num_classes: int, pretrained: bool = True) -> FasterRCNN:
    """The detector of a config for labels [0, num_classes), in channels-last memory.

    `pretrained=False` leaves out the backbone's weights: a checkpoint that is loaded next brings its own.
    """
    backbone = _backbone(config.backbone, pretrained)
    channels: tuple[int, ...] = backbone.channels  # type: ignore[assignment]
    strides: tuple[int, ...] = backbone.strides  # type: ignore[assignment]
    neck = FPN(channels, strides, config.neck.out_channels, config.neck.norm, config.neck.extra_level)
    rpn = _rpn(config.rpn, neck)
    roi_head = _roi_head(config, neck.channels[0], strides, num_classes)
    model = FasterRCNN(backbone, neck, rpn, roi_head, config.pixel_mean, config.pixel_std, config.size_multiple)
    return model.to(memory_format=torch.channels_last)


def _backbone(config: BackboneConfig, pretrained: bool) -> nn.Module:
    return build_backbone(
        config.name,
        norm=config.norm,
        frozen_stages=config.frozen_stages,
        stride_in_1x1=config.stride_in_1x1,
        weights=config.weights if pretrained else None,
    )


def _rpn(config: RPNConfig, neck: FPN) -> RPN:
    anchors = AnchorGenerator(neck.strides, config.anchor_sizes, config.anchor_ratios)
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
    config: Config,
    model: FasterRCNN,
    loader: EpochLoader,
    folder: Path,
    checkpoint_extra: dict[str, Any],
    evaluate: Evaluate,
    resume: dict[str, Any] | None,
    precision: Precision,
) -> Trainer:
    """The training loop with optimizer and schedule; the model is on its device already."""
    options = config.train
    device = model.pixel_mean.device
    steps = total_steps(loader.steps_per_epoch, options.accumulate, options.epochs, options.iterations)
    optimizer, scheduler = _optimizer_and_schedule(options, model, steps)
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
        save_every=options.save_every,
        checkpoint_minutes=options.checkpoint_minutes,
        log_every=options.log_every,
        resume=resume,
    )


def _optimizer_and_schedule(options: TrainConfig, model: FasterRCNN, steps: int) -> tuple[Optimizer, LRScheduler]:
    optimizer = build_optimizer(
        model,
        options.optimizer,
        scaled_lr(options.lr, options.batch_size, options.accumulate),
        options.weight_decay,
        options.momentum,
        options.backbone_lr_factor,
    )
    scheduler = build_scheduler(
        optimizer,
        options.schedule,
        steps,
        options.warmup_steps,
        options.warmup_factor,
        options.milestones,
        options.gamma,
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
