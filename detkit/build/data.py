"""The data set of a detector's config, and its loaders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from detkit.config import Config, DataConfig
from detkit.data.coco import CocoIndex, load_coco
from detkit.data.dataset import DetectionDataset
from detkit.data.layout import Split, find_split
from detkit.data.loader import EpochLoader
from detkit.data.resize import median_short_side
from detkit.data.sampling import repeat_factors
from detkit.data.shapes import ensure_shapes
from detkit.data.transforms import build_transform
from detkit.engine.distributed import ALONE, World


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
    if config.root is not None:
        return Path(config.root).expanduser()
    if config.val_annotations is None or config.val_images is None:
        raise ValueError("no data set is named, and imported checkpoints bring none: give data.root=PATH/TO/COCO")
    return Path()


def _load_val(config: DataConfig, split: Split, classes: Sequence[str]) -> CocoIndex:
    return load_coco(split.annotations, split.images, classes=classes, on_bad=config.on_bad, limit=config.limit)


def build_train_loader(config: Config, data: TrainingData, device: torch.device, world: World = ALONE) -> EpochLoader:
    """Shuffled and augmented batches of the training split, this rank's share of them."""
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
        rank=world.rank,
        world_size=world.size,
        skip_unreadable=options.on_bad == "drop",
        worker_timeout=options.worker_timeout,
        repeat_factors=repeat_factors(data.train, options.repeat_threshold) if options.repeat_threshold else None,
        pin_memory=device.type == "cuda",
    )


def build_val_loader(
    config: DataConfig, index: CocoIndex, short_side: int, batch_size: int, world: World = ALONE
) -> EpochLoader:
    """The validation pictures in batches, each exactly once over all ranks, as they are."""
    dataset = DetectionDataset(index, [short_side], config.long_side, config.resize)
    return EpochLoader(
        dataset,
        batch_size,
        shuffle=False,
        workers=config.workers,
        rank=world.rank,
        world_size=world.size,
        worker_timeout=config.worker_timeout,
    )
