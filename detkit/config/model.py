"""The sections of a config that say what a detector is made of."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detkit.config.section import (
    BackboneNorm,
    BoxLoss,
    Count,
    ExtraLevel,
    Fraction,
    Name,
    Norm,
    NotNegative,
    Positive,
    PositiveInt,
    Section,
    Triple,
)


class BackboneConfig(Section):
    """Which backbone, and what of it trains."""

    name: str = "resnet50"
    """One that `detkit backbones` lists, or `timm/NAME`."""
    weights: Name = None
    """What it starts from: `none`, `imagenet` (published ones), `pip:efficientnet-lite0`, or a path."""
    frozen_stages: Annotated[int, Field(ge=0, le=6)] = 0
    """How many leading stages do not train: 0 none, 1 the stem, 2 the stem and the first stage, ..."""
    norm: BackboneNorm = "default"
    """Kind of norm; `default`: the net's own."""
    padding: Literal["centred", "reference"] = "centred"
    """`centred` puts cells where strides say; `reference` is the published layout of nets with unpadded layers."""
    checkpointing: bool = False
    """Keep only the inputs of stages for the backward pass and compute the rest again: less memory, a second forward
    pass. With DenseNet, `options.memory_efficient` repeats less."""
    stride_in_1x1: bool | None = None
    """ResNets and DetNet: blocks stride in their first 1x1, not in the 3x3; none: as the net's paper."""
    norm_eps: NotNegative | None = None
    """What batch norm adds to the variance; none: what the net's paper adds."""
    options: dict[str, bool | int | float | str | tuple[float, ...]] = {}  # noqa: RUF012 (pydantic copies it)
    """What else the net's constructor takes, also as `model.backbone.options.groups=8`."""


class NeckConfig(Section):
    """FPN: lateral and top-down connections."""

    out_channels: PositiveInt = 256
    """Channels of every level that leaves it."""
    norm: Norm = "none"
    """Kind of norm after each convolution."""
    extra_level: ExtraLevel = "pool"
    """The coarsest level, which only the RPN sees: by max-pool (FPN), by a convolution, or none."""


class RPNConfig(Section):
    """Region proposal network: anchors to proposals."""

    anchor_sizes: tuple[Positive, ...] | None = None
    """Pixels, one size a level, finest first; none: 32 * 2^i."""
    anchor_ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    """Height over width of the anchors of each cell."""
    round_anchors: bool = False
    """Anchors in whole pixels, as torchvision has them, for weights that were trained there."""
    convs: PositiveInt = 1
    """3x3 convolutions before objectness and deltas."""
    positive_iou: Fraction = 0.7
    """An anchor with at least this overlap stands for the object."""
    negative_iou: Fraction = 0.3
    """One with less is background; what lies between is ignored."""
    samples: PositiveInt = 256
    """Anchors a picture that the losses look at."""
    positive_fraction: Fraction = 0.5
    """At most this share of them stands for objects."""
    pre_nms_train: PositiveInt = 2000
    """Anchors a level that enter NMS in training."""
    pre_nms_test: PositiveInt = 1000
    """The same in detection."""
    post_nms_train: PositiveInt = 1000
    """Proposals a picture that leave NMS in training."""
    post_nms_test: PositiveInt = 1000
    """The same in detection."""
    nms_iou: Fraction = 0.7
    """Of proposals of one level that overlap by more, the best remains."""
    min_size: NotNegative = 0.0
    """Proposals with a shorter side, in pixels of the resized picture, are dropped."""
    sigmoid: Literal["first", "before_nms", "last"] = "before_nms"
    """When logits become scores, which breaks ties at 1: `first` as in mmdetection, `before_nms` as in torchvision,
    `last` as in detectron2."""
    box_loss: BoxLoss = "smooth_l1"
    """Loss of the deltas."""
    smooth_l1_beta: Positive = 1 / 9
    """Where smooth L1 turns from a square into a line."""
    box_loss_weight: Positive = 1.0
    """Factor of the loss of the deltas."""

    @model_validator(mode="after")
    def _thresholds(self) -> "RPNConfig":
        if self.negative_iou > self.positive_iou:
            raise ValueError(f"negative_iou {self.negative_iou} must not exceed positive_iou {self.positive_iou}")
        return self


class RoIHeadConfig(Section):
    """RoI pooling and box head: convolutions, hidden layers, then class scores and deltas."""

    samples: PositiveInt = 512
    """Proposals a picture that the losses look at."""
    positive_fraction: Fraction = 0.25
    """At most this share of them stands for objects."""
    positive_iou: Fraction = 0.5
    """A proposal with at least this overlap stands for the object; others are background."""
    canonical_size: Positive = 224.0
    """Pixels a side of an RoI that is pooled from the level of stride 16 (FPN, eq. 1)."""
    pool_size: PositiveInt = 7
    """Bins a side of a pooled RoI."""
    sampling_ratio: Count = 2
    """Samples a side of a bin; 0: as many as the bin is cells wide."""
    aligned: bool = True
    """RoIAlign with the shift by half a pixel."""
    convs: Count = 0
    """3x3 convolutions of the box head."""
    conv_channels: PositiveInt = 256
    """Their channels."""
    linears: Count = 2
    """Hidden layers of the box head."""
    width: PositiveInt = 1024
    """Their width."""
    norm: Norm = "none"
    """Kind of norm after each convolution."""
    init: Literal["kaiming", "small"] = "kaiming"
    """Start of the hidden layers: `small` (a sixth of the variance) is for levels that come large and without norm
    from a pretrained backbone."""
    class_agnostic: bool = False
    """One set of deltas for all classes."""
    box_weights: tuple[Positive, Positive, Positive, Positive] = (10.0, 10.0, 5.0, 5.0)
    """Factors of the four deltas, so that their spread is about one."""
    min_size: NotNegative = 0.0
    """Detections with a shorter side, in pixels of the resized picture, are dropped."""
    box_loss: BoxLoss = "smooth_l1"
    """Loss of the deltas."""
    smooth_l1_beta: Positive = 1.0
    """Where smooth L1 turns from a square into a line."""
    box_loss_weight: Positive = 1.0
    """Factor of the loss of the deltas."""


class ModelConfig(Section):
    """The detector."""

    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    rpn: RPNConfig = RPNConfig()
    roi_head: RoIHeadConfig = RoIHeadConfig()
    weights: Name = None
    """None, or the checkpoint of a detector to start from; classes with the same names keep what they learned."""
    score_threshold: Fraction = 0.05
    """Detections with a lower score are dropped."""
    nms_iou: Fraction = 0.5
    """Of detections of one class that overlap by more, the best remains."""
    max_detections: PositiveInt = 100
    """The best so many of a picture remain."""
    pixel_mean: Triple = (123.675, 116.28, 103.53)
    """Subtracted from red, green and blue, in 0..255."""
    pixel_std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)
    """What they are then divided by."""
    size_multiple: PositiveInt = 32
    """Pictures of a batch are padded to multiples of so many pixels."""
    fast_convolutions: bool = True
    """On processors without AVX-512 3x3 convolutions go detkit's own, faster way; false: PyTorch's. The numbers are the
    same up to rounding."""
