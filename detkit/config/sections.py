"""The sections of a detector's config: what may be set, of which type, in which range."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

BoxLoss = Literal["smooth_l1", "l1", "giou"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Seconds = Annotated[float, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
Triple = tuple[float, float, float]


def _none_word(value: object) -> object:
    return None if isinstance(value, str) and value.lower() == "none" else value


def _word_none(value: object) -> object:
    return "none" if value is None else value


def _listed(value: object) -> object:
    """Names that are joined by commas, and the word none, as tuples."""
    if value is None:
        return ()
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


Name = Annotated[str | None, BeforeValidator(_none_word)]
# `none` on the command line is read as Python's None, but here it is a word like the others.
Norm = Annotated[Literal["batch", "frozen", "group", "sync", "none"], BeforeValidator(_word_none)]
BackboneNorm = Annotated[Literal["default", "batch", "frozen", "group", "sync", "none"], BeforeValidator(_word_none)]
Loggers = Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], BeforeValidator(_listed)]


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class BackboneConfig(Section):
    """Which backbone. `weights`: none, imagenet (published ones), pip:efficientnet-lite0 or a path.

    `frozen_stages`: how many leading stages do not train: 0 none, 1 the stem, 2 the stem and the first stage, ...
    `norm_eps`: what batch norm adds to the variance; none: what the net's paper adds.
    `norm` default: the net's own. `padding` centred puts cells where strides say, reference is the published layout.
    `checkpointing`: keep only the inputs of stages for the backward pass and compute the rest again there: a smaller
    memory for a second forward pass; with DenseNet also options.memory_efficient, which repeats less.
    `stride_in_1x1`, of ResNets and DetNet: whether blocks stride in their first 1x1 or in the 3x3; none: the net's own.
    `options`: what else the net's constructor takes, e.g. {"groups": 8}, on the command line also
    model.backbone.options.groups=8.
    """

    name: str = "resnet50"
    weights: Name = None
    frozen_stages: Annotated[int, Field(ge=0, le=6)] = 0
    norm: BackboneNorm = "default"
    padding: Literal["centred", "reference"] = "centred"
    checkpointing: bool = False
    stride_in_1x1: bool | None = None
    norm_eps: Annotated[float, Field(ge=0)] | None = None
    options: dict[str, bool | int | float | str | tuple[float, ...]] = {}


class NeckConfig(Section):
    """FPN. `extra_level` is the coarsest level, which only the RPN sees: by max-pool (FPN), a convolution, or none."""

    out_channels: PositiveInt = 256
    norm: Norm = "none"
    extra_level: Annotated[Literal["pool", "conv", "none"], BeforeValidator(_word_none)] = "pool"


class RPNConfig(Section):
    """Region proposal network. `anchor_sizes`: one a level, finest first; none: 32 * 2^i. `pre_nms_*`: a level.

    `round_anchors`: anchors in whole pixels, as torchvision has them, for weights that were trained there.
    `sigmoid`: when logits become scores, which breaks ties at 1: `first` as in mmdetection, `before_nms` as in
    torchvision, `last` as in detectron2.
    """

    anchor_sizes: tuple[Positive, ...] | None = None
    anchor_ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    round_anchors: bool = False
    convs: PositiveInt = 1
    positive_iou: Fraction = 0.7
    negative_iou: Fraction = 0.3
    samples: PositiveInt = 256
    positive_fraction: Fraction = 0.5
    pre_nms_train: PositiveInt = 2000
    pre_nms_test: PositiveInt = 1000
    post_nms_train: PositiveInt = 1000
    post_nms_test: PositiveInt = 1000
    nms_iou: Fraction = 0.7
    min_size: Annotated[float, Field(ge=0)] = 0.0
    sigmoid: Literal["first", "before_nms", "last"] = "before_nms"
    box_loss: BoxLoss = "smooth_l1"
    smooth_l1_beta: Positive = 1 / 9
    box_loss_weight: Positive = 1.0

    @model_validator(mode="after")
    def _thresholds(self) -> "RPNConfig":
        if self.negative_iou > self.positive_iou:
            raise ValueError(f"negative_iou {self.negative_iou} must not exceed positive_iou {self.positive_iou}")
        return self


class RoIHeadConfig(Section):
    """RoI pooling and box head: `convs` 3x3 convolutions, `linears` hidden layers, then class scores and deltas.

    `init` of the hidden linear layers: `kaiming`, or `small` (a sixth of the variance) for levels that come large and
    without norm from a pretrained backbone.
    `min_size`: detections with a shorter side, in pixels of the resized picture, are dropped.
    """

    samples: PositiveInt = 512
    positive_fraction: Fraction = 0.25
    positive_iou: Fraction = 0.5
    canonical_size: Positive = 224.0
    pool_size: PositiveInt = 7
    sampling_ratio: Count = 2
    aligned: bool = True
    convs: Count = 0
    conv_channels: PositiveInt = 256
    linears: Count = 2
    width: PositiveInt = 1024
    norm: Norm = "none"
    init: Literal["kaiming", "small"] = "kaiming"
    class_agnostic: bool = False
    box_weights: tuple[Positive, Positive, Positive, Positive] = (10.0, 10.0, 5.0, 5.0)
    min_size: Annotated[float, Field(ge=0)] = 0.0
    box_loss: BoxLoss = "smooth_l1"
    smooth_l1_beta: Positive = 1.0
    box_loss_weight: Positive = 1.0


class ModelConfig(Section):
    """The detector. `weights`: none, or the checkpoint of a detector to start from.

    `size_multiple`: pictures of a batch are padded to multiples of so many pixels.
    """

    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    rpn: RPNConfig = RPNConfig()
    roi_head: RoIHeadConfig = RoIHeadConfig()
    weights: Name = None
    score_threshold: Fraction = 0.05
    nms_iou: Fraction = 0.5
    max_detections: PositiveInt = 100
    pixel_mean: Triple = (123.675, 116.28, 103.53)
    pixel_std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)
    size_multiple: PositiveInt = 32


class DataConfig(Section):
    """Pictures and annotations in COCO format.

    `root`: a folder whose layout is recognised by looking, or the word `shapes`: a set that detkit draws into
    data/shapes, or none, as in imported checkpoints. The four explicit paths win over what is found (relative ones
    start at root). `limit`: the first n pictures of each split. `short_side`: pixels, or `auto`: the median short side
    of the training set, at most 800. `train_scales`: factors of the short side, drawn at random for each training
    picture. `worker_timeout`: seconds without a batch after which a loader worker counts as hanging, 0: never.
    `repeat_threshold`: pictures of classes that fewer than this share of the pictures show come more often, by
    sqrt(threshold / share) (LVIS); 0 is off; LVIS takes 0.001.
    """

    root: Name = "shapes"
    train_annotations: Name = None
    train_images: Name = None
    val_annotations: Name = None
    val_images: Name = None
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    workers: Count = 2
    worker_timeout: Seconds = 600.0
    limit: PositiveInt | None = None
    on_bad: Literal["stop", "drop"] = "stop"
    keep_empty: bool = True
    short_side: PositiveInt | Literal["auto"] = "auto"
    long_side: PositiveInt = 1333
    resize: Literal["opencv", "torch", "pillow"] = "opencv"
    train_scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    flip: Fraction = 0.5
    vertical_flip: Fraction = 0.0
    colour: Fraction = 0.0
    crop: Fraction = 0.0
    group_by_aspect: bool = True
    repeat_threshold: Fraction = 0.0

    @model_validator(mode="after")
    def _unique_classes(self) -> "DataConfig":
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must differ from each other, got {', '.join(self.classes)}")
        return self


class TrainConfig(Section):
    """The run. `lr` is for 16 pictures a step and scaled to the actual number; `milestones` are fractions of the run.

    `iterations` (optimizer steps) wins over `epochs`; `eval_every` and `save_every` (for last.pth) count epochs.
    `momentum` is that of SGD and RMSProp, `nesterov` is SGD's, `alpha` RMSProp's decay of the mean square, `eps` what
    RMSProp and AdamW add to the root. `exponential` multiplies by `gamma` every `decay_epochs`.
    `val_losses`: the losses on the validation split with each evaluation of a detector.
    `patience`: the run ends after so many evaluations in a row without a better AP; 0 is off.
    `thaw_at`: from this epoch on, counted from 1, the stages that model.backbone.frozen_stages froze train, too.
    `ema_decay` 0 is off, `clip_norm` 0 is off, `checkpoint_minutes` 0 is off.
    `skip_nonfinite`: so many steps whose loss or gradient is not finite are skipped before one stops the run.
    `loggers`: what gets the rows of metrics.jsonl, too: tensorboard, wandb, mlflow (joined by commas), or none.
    `deterministic` refuses operators of torch that do not repeat to the bit.
    `precision` auto: bfloat16 where the processor has it, else float32.
    `distributed_timeout_seconds`: how long a process waits for the others before it takes them for lost.
    """

    epochs: PositiveInt = 12
    iterations: PositiveInt | None = None
    batch_size: PositiveInt = 16
    accumulate: PositiveInt = 1
    optimizer: Literal["sgd", "adamw", "rmsprop"] = "sgd"
    lr: Positive = 0.02
    momentum: Fraction = 0.9
    nesterov: bool = False
    alpha: Fraction = 0.9
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    backbone_lr_factor: Positive = 1.0
    schedule: Literal["multistep", "cosine", "onecycle", "exponential", "linear"] = "multistep"
    milestones: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (2 / 3, 11 / 12)
    gamma: Positive = 0.1
    decay_epochs: Positive = 1.0
    warmup_steps: Count = 500
    warmup_factor: Annotated[float, Field(gt=0, le=1)] = 0.001
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    skip_nonfinite: Count = 0
    thaw_at: Annotated[int, Field(ge=2)] | None = None
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: Count = 0
    output: Name = None
    device: str = "auto"
    deterministic: bool = False
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    eval_every: PositiveInt = 1
    val_losses: bool = True
    patience: Count = 0
    save_every: PositiveInt = 1
    log_every: PositiveInt = 20
    loggers: Loggers = ("tensorboard",)
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 10.0
    distributed_timeout_seconds: Positive = 600.0
