"""The schema of a classifier's config, for pretraining a backbone on a folder of pictures for each class.

A config file ends in `config = ClassifierConfig(...)`, and `load_config(source, kind=ClassifierConfig)` reads it.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detkit.config.runs import RunConfig
from detkit.config.sections import (
    BackboneConfig,
    Count,
    Fraction,
    Positive,
    PositiveInt,
    Seconds,
    Section,
    TrainConfig,
    Triple,
)

# The smallest picture that backbones take.
MIN_SIZE = 33
Share = Annotated[float, Field(gt=0, le=1)]


class ClassifierModelConfig(Section):
    """The net, in the layout of its paper (`backbone.padding=reference`), which has the same weights as the detector's.

    Pictures become (picture - pixel_mean) / pixel_std, in 0..255, as detectors' pictures do.
    """

    backbone: BackboneConfig = BackboneConfig(padding="reference")
    pixel_mean: Triple = (123.675, 116.28, 103.53)
    pixel_std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)

    @model_validator(mode="after")
    def _of_classifiers(self) -> "ClassifierModelConfig":
        if self.backbone.weights is not None:
            raise ValueError("backbone.weights must be none: a classifier starts from random weights, or with --resume")
        if self.backbone.checkpointing:
            raise ValueError("backbone.checkpointing is for the large pictures of detectors; set it to false")
        return self


class FolderConfig(Section):
    """Pictures as root/`train_folder`/<class>/*.jpg and root/`val_folder`/<class>/*.jpg.

    `size`: px of the square that the net sees. `crop` area: a part of the picture of `crop_scale` of its area and
    `crop_ratio` (width over height); `side`: a `size` px square out of the picture whose short side is `short_sides` px
    (from, to). Validation takes the middle `size` px out of a short side of `val_short_side` px. `flip`,
    `vertical_flip`, `colour`: probabilities. `limit`: so many pictures of each split, evenly over the classes.
    `on_bad` drop: leave out training pictures that cannot be read, and name them. `worker_timeout`: seconds without a
    batch after which a loader worker counts as hanging, 0: never.
    """

    root: str = "imagenet"
    train_folder: str = "train"
    val_folder: str = "val"
    workers: Count = 4
    worker_timeout: Seconds = 600.0
    limit: PositiveInt | None = None
    on_bad: Literal["stop", "drop"] = "stop"
    size: Annotated[int, Field(ge=MIN_SIZE)] = 224
    val_short_side: PositiveInt = 256
    crop: Literal["area", "side"] = "area"
    crop_scale: tuple[Share, Share] = (0.08, 1.0)
    crop_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    short_sides: tuple[PositiveInt, PositiveInt] = (256, 256)
    flip: Fraction = 0.5
    vertical_flip: Fraction = 0.0
    colour: Fraction = 0.0

    @model_validator(mode="after")
    def _in_order(self) -> "FolderConfig":
        for key in ("crop_scale", "crop_ratio", "short_sides"):
            low, high = getattr(self, key)
            if low > high:
                raise ValueError(f"{key} is (from, to), got ({low}, {high})")
        smallest = min(self.val_short_side, self.short_sides[0] if self.crop == "side" else self.val_short_side)
        if smallest < self.size:
            raise ValueError(f"size {self.size} does not fit into a short side of {smallest}: raise it, or lower size")
        return self


class ClassifierTrainConfig(TrainConfig):
    """The run, as a detector's, and `label_smoothing`, the share of each label that is spread over all classes."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ClassifierConfig(RunConfig):
    """All of a classifier's run: the model, the data, the training. `task` tells its checkpoints from detectors'."""

    what = "a classifier"
    command = "detkit train-cls"

    task: Literal["classification"] = "classification"
    model: ClassifierModelConfig = ClassifierModelConfig()
    data: FolderConfig = FolderConfig()
    train: ClassifierTrainConfig = ClassifierTrainConfig()
