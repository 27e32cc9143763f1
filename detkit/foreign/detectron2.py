"""detectron2's Faster R-CNN with FPN, from its .pkl and .pth files, and the backbones of the same names.

Pictures are BGR and not divided by a deviation; ResNets stride in the first 1x1 convolution of a block.
"""

from detkit.foreign.names import HEAD, Library, Rule

_BLOCKS: tuple[Rule, ...] = (
    (r"stem\.conv1\.weight", r"conv1.weight"),
    (r"stem\.conv1\.norm\.(\w+)", r"bn1.\1"),
    *((rf"res{n}\.(\d+)\.conv(\d)\.weight", rf"layer{n - 1}.\1.conv\2.weight") for n in range(2, 6)),
    *((rf"res{n}\.(\d+)\.conv(\d)\.norm\.(\w+)", rf"layer{n - 1}.\1.bn\2.\3") for n in range(2, 6)),
    *((rf"res{n}\.(\d+)\.shortcut\.weight", rf"layer{n - 1}.\1.downsample.0.weight") for n in range(2, 6)),
    *((rf"res{n}\.(\d+)\.shortcut\.norm\.(\w+)", rf"layer{n - 1}.\1.downsample.1.\2") for n in range(2, 6)),
)
_BACKBONE: tuple[Rule, ...] = tuple((rf"(?:backbone\.)?(?:bottom_up\.)?{old}", new) for old, new in _BLOCKS)

_DETECTOR: tuple[Rule, ...] = (
    *((rf"backbone\.bottom_up\.{old}", f"backbone.{new}") for old, new in _BLOCKS),
    *((rf"backbone\.fpn_lateral{n}\.(weight|bias)", rf"neck.lateral.{n - 2}.0.\1") for n in range(2, 6)),
    *((rf"backbone\.fpn_output{n}\.(weight|bias)", rf"neck.output.{n - 2}.0.\1") for n in range(2, 6)),
    *((rf"backbone\.fpn_lateral{n}\.norm\.(\w+)", rf"neck.lateral.{n - 2}.1.\1") for n in range(2, 6)),
    *((rf"backbone\.fpn_output{n}\.norm\.(\w+)", rf"neck.output.{n - 2}.1.\1") for n in range(2, 6)),
    (r"proposal_generator\.rpn_head\.conv\.(weight|bias)", r"rpn.head.convs.0.\1"),
    (r"proposal_generator\.rpn_head\.conv\.conv(\d+)\.(weight|bias)", r"rpn.head.convs.\1.\2"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(weight|bias)", r"rpn.head.objectness.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(weight|bias)", r"rpn.head.deltas.\1"),
    (r"roi_heads\.box_head\.conv(\d+)\.(weight|bias)", rf"{HEAD}.conv.\1.0.\2"),
    (r"roi_heads\.box_head\.conv(\d+)\.norm\.(\w+)", rf"{HEAD}.conv.\1.1.\2"),
    (r"roi_heads\.box_head\.fc(\d+)\.(weight|bias)", rf"{HEAD}.linear.\1.\2"),
    (r"roi_heads\.box_predictor\.cls_score\.(weight|bias)", rf"{HEAD}.scores.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(weight|bias)", rf"{HEAD}.deltas.\1"),
)

# The channels of the mean are detkit's: RGB.
LIBRARY = Library(
    _DETECTOR,
    _BACKBONE,
    model={
        "backbone.stride_in_1x1": True,
        "pixel_mean": (123.675, 116.28, 103.53),
        "pixel_std": (1.0, 1.0, 1.0),
        "rpn.sigmoid": "last",
        "roi_head.aligned": True,
        "roi_head.sampling_ratio": 0,
    },
    data={"resize": "pillow"},
    bgr=True,
)
