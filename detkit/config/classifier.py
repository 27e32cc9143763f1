"""The schema of a classifier's config, for pretraining a backbone on a folder of pictures for each class.

A config file ends in `config = ClassifierConfig(...)`, and `load_config(source, kind=ClassifierConfig)` reads it.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detkit.config.model import BackboneConfig
from detkit.config.runs import RunConfig
from detkit.config.section import Count, Fraction, NotNegative, Positive, PositiveInt, Section, Triple
from detkit.config.train import TrainConfig

# The smallest picture that backbones take.
MIN_SIZE = 33
Share = Annotated[float, Field(gt=0, le=1)]


class ClassifierModelConfig(Section):
    """The net, in the layout of its paper, `backbone.padding=reference`; the weights are the same in a detector."""

    backbone: BackboneConfig = BackboneConfig(padding="reference")
    pixel_mean: Triple = (123.675, 116.28, 103.53)
    """Subtracted from red, green and blue, in 0..255."""
    pixel_std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)
    """What they are then divided by."""
    fast_convolutions: bool = True
    """On processors without AVX-512 3x3 convolutions go detkit's own, faster way; false: PyTorch's. The numbers are the
    same up to rounding."""

    @model_validator(mode="after")
    def _of_classifiers(self) -> "ClassifierModelConfig":
        if self.backbone.weights is not None:
            raise ValueError("backbone.weights must be none: a classifier starts from random weights, or with --resume")
        if self.backbone.checkpointing:
            raise ValueError("backbone.checkpointing is for the large pictures of detectors; set it to false")
        return self


class FolderConfig(Section):
    """Pictures as root/`train_folder`/<class>/*.jpg and root/`val_folder`/<class>/*.jpg."""

    root: str = "imagenet"
    """The folder that holds both splits."""
    train_folder: str = "train"
    """Its folder of training pictures."""
    val_folder: str = "val"
    """Its folder of validation pictures."""
    workers: Count = 4
    """Processes that read pictures; 0: the training process itself."""
    worker_timeout: NotNegative = 600.0
    """Seconds without a batch after which a worker counts as hanging; 0: never."""
    limit: PositiveInt | None = None
    """So many pictures of each split, evenly over the classes."""
    on_bad: Literal["stop", "drop"] = "stop"
    """`drop`: leave out training pictures that cannot be read, and name them."""
    size: Annotated[int, Field(ge=MIN_SIZE)] = 224
    """Pixels a side of the square that the net sees."""
    val_short_side: PositiveInt = 256
    """Validation takes the middle `size` pixels out of a short side of so many."""
    crop: Literal["area", "side"] = "area"
    """Training sees `area`: a part of the picture's area; `side`: a square out of a picture resized by its short
    side."""
    crop_scale: tuple[Share, Share] = (0.08, 1.0)
    """`crop=area`: share of the picture's area (from, to)."""
    crop_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """`crop=area`: width over height (from, to)."""
    short_sides: tuple[PositiveInt, PositiveInt] = (256, 256)
    """`crop=side`: pixels of the short side (from, to)."""
    flip: Fraction = 0.5
    """Probability of a mirrored picture."""
    vertical_flip: Fraction = 0.0
    """Probability of a picture upside down."""
    colour: Fraction = 0.0
    """Probability of changed colours."""

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
    """The run, as a detector's, and label smoothing."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each label that is spread over all classes."""


class ClassifierConfig(RunConfig):
    """All of a classifier's run: the model, the data, the training."""

    what = "a classifier"
    command = "detkit train-cls"

    task: Literal["classification"] = "classification"
    """Tells its checkpoints from detectors'."""
    model: ClassifierModelConfig = ClassifierModelConfig()
    data: FolderConfig = FolderConfig()
    train: ClassifierTrainConfig = ClassifierTrainConfig()
