"""What the config of a classifier becomes: the folders of pictures, the loaders, the net with its losses."""

from dataclasses import dataclass
from pathlib import Path

import torch

from detkit.build.models import backbone_options, build_classifier, laid_out
from detkit.config import ClassifierConfig, ClassifierModelConfig, FolderConfig
from detkit.data.classification import AreaCrop, CentreCrop, ClassificationDataset, Crop, SideCrop
from detkit.data.folders import FolderIndex, load_folders
from detkit.data.loader import EpochLoader
from detkit.data.transforms import build_transform
from detkit.engine.distributed import ALONE, World
from detkit.models.classification import ClassifierTraining
from detkit.norm import set_norm_eps

FolderLoader = EpochLoader[ClassificationDataset]


@dataclass(frozen=True)
class Folders:
    """Both splits; the classes are those of training."""

    train: FolderIndex
    val: FolderIndex

    def fingerprint(self) -> str:
        """Changes when pictures come, go or change class."""
        return f"{self.train.fingerprint()}-{self.val.fingerprint()}"


def build_folders(config: FolderConfig) -> Folders:
    """Find the pictures of both splits. Raises ValueError where the layout is not the one that is expected."""
    root = Path(config.root).expanduser()
    train = load_folders(root, config.train_folder, limit=config.limit)
    return Folders(train, load_folders(root, config.val_folder, train.classes, config.limit))


def build_loaders(
    config: ClassifierConfig, folders: Folders, device: torch.device, world: World = ALONE
) -> tuple[FolderLoader, FolderLoader]:
    """Shuffled and augmented batches of the training split, and the validation pictures, each once and as they are.

    Both are this rank's share.
    """
    data, train = config.data, config.train
    transform = build_transform(data.flip, data.vertical_flip, data.colour, 0.0)
    dataset = ClassificationDataset(folders.train, data.size, _crop(data), transform, train.seed)
    shuffled = EpochLoader(
        dataset,
        train.batch_size,
        shuffle=True,
        seed=train.seed,
        workers=data.workers,
        group_by_aspect=False,
        drop_last=True,
        rank=world.rank,
        world_size=world.size,
        skip_unreadable=data.on_bad == "drop",
        worker_timeout=data.worker_timeout,
        pin_memory=device.type == "cuda",
    )
    plain = ClassificationDataset(folders.val, data.size, CentreCrop(data.size, data.val_short_side))
    validation = EpochLoader(
        plain,
        train.batch_size,
        shuffle=False,
        workers=data.workers,
        group_by_aspect=False,
        rank=world.rank,
        world_size=world.size,
        worker_timeout=data.worker_timeout,
    )
    return shuffled, validation


def _crop(config: FolderConfig) -> Crop:
    if config.crop == "side":
        return SideCrop(config.size, config.short_sides)
    return AreaCrop(config.crop_scale, config.crop_ratio)


def build_training(config: ClassifierModelConfig, num_classes: int, label_smoothing: float = 0.0) -> ClassifierTraining:
    """The classifier of a config with its losses, in channels-last memory. Raises ValueError for unknown options."""
    backbone = config.backbone
    classifier = build_classifier(
        backbone.name,
        num_classes,
        norm=backbone.norm,
        frozen_stages=backbone.frozen_stages,
        padding=backbone.padding,
        **backbone_options(backbone),
    )
    if backbone.norm_eps is not None:
        set_norm_eps(classifier, backbone.norm_eps)
    training = ClassifierTraining(classifier, config.pixel_mean, config.pixel_std, label_smoothing)
    return laid_out(training, config.fast_convolutions)


def check_picture_size(config: ClassifierConfig) -> None:
    """Raises ValueError where pictures of `data.size` are too small for the net, by trying one without numbers."""
    size = config.data.size
    with torch.device("meta"):
        training = build_training(config.model, num_classes=2).train()
        try:
            training.classifier(torch.zeros(2, 3, size, size))
        except (ValueError, RuntimeError) as error:
            reason = str(error).split(". Calculated")[0]
            raise ValueError(
                f"data.size={size} is too small for {config.model.backbone.name} as a classifier ({reason}): raise it"
            ) from None
