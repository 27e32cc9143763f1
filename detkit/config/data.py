"""The section of a config that says which pictures are seen, and how."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detkit.config.section import Count, Fraction, Name, NotNegative, Positive, PositiveInt, Section


class DataConfig(Section):
    """Pictures and annotations in COCO format."""

    root: Name = "shapes"
    """A folder whose layout is recognised by looking; `shapes`: a set that detkit draws into data/shapes; none, as in
    imported checkpoints."""
    train_annotations: Name = None
    """JSON file of the training split, where it is not what is found in `root`. Relative paths start at `root`."""
    train_images: Name = None
    """Folder of its pictures."""
    val_annotations: Name = None
    """JSON file of the validation split."""
    val_images: Name = None
    """Folder of its pictures."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Names of the classes to learn; none: all that the training annotations have."""
    workers: Count = 2
    """Processes that read pictures; 0: the training process itself."""
    worker_timeout: NotNegative = 600.0
    """Seconds without a batch after which a worker counts as hanging; 0: never."""
    limit: PositiveInt | None = None
    """The first n pictures of each split, to try things out."""
    on_bad: Literal["stop", "drop"] = "stop"
    """What to do about faulty boxes and unreadable pictures: stop and name them, or leave them out and count them."""
    keep_empty: bool = True
    """Train on pictures without objects, too."""
    short_side: PositiveInt | Literal["auto"] = "auto"
    """Pixels to which the short side is resized; `auto`: the median of the training set, at most 800."""
    long_side: PositiveInt = 1333
    """The long side becomes no longer than this."""
    resize: Literal["opencv", "torch", "pillow"] = "opencv"
    """How pictures are resized: `torch` as torchvision, `pillow` as detectron2, for weights that come from there."""
    train_scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    """Factors of the short side, one drawn for each training batch."""
    flip: Fraction = 0.5
    """Probability of a mirrored picture."""
    vertical_flip: Fraction = 0.0
    """Probability of a picture upside down."""
    colour: Fraction = 0.0
    """Probability of changed colours."""
    crop: Fraction = 0.0
    """Probability of a random part of the picture."""
    group_by_aspect: bool = True
    """Wide and tall pictures in different batches, which saves padding."""
    repeat_threshold: Fraction = 0.0
    """Pictures of classes that fewer than this share of the pictures show come more often, by sqrt(threshold / share)
    (LVIS, which takes 0.001); 0 is off."""

    @model_validator(mode="after")
    def _unique_classes(self) -> "DataConfig":
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must differ from each other, got {', '.join(self.classes)}")
        return self
