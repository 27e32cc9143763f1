"""torchvision's Faster R-CNN: `fasterrcnn_resnet50_fpn`, its `_v2`, and others of the class with a ResNet and FPN.

Files from before version 2 of its FPN, the published v1 among them, lack one number in the names of FPN and RPN.
"""

from detkit.foreign.names import HEAD, Library, Rule

_DETECTOR: tuple[Rule, ...] = (
    (r"backbone\.body\.(.+)", r"backbone.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.(weight|bias)", r"neck.lateral.\1.0.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.(weight|bias)", r"neck.output.\1.0.\2"),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.([01])\.(\w+)", r"neck.lateral.\1.\2.\3"),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.([01])\.(\w+)", r"neck.output.\1.\2.\3"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.convs.0.\1"),
    (r"rpn\.head\.conv\.(\d+)\.0\.(weight|bias)", r"rpn.head.convs.\1.\2"),
    (r"rpn\.head\.cls_logits\.(weight|bias)", r"rpn.head.objectness.\1"),
    (r"rpn\.head\.bbox_pred\.(weight|bias)", r"rpn.head.deltas.\1"),
    (r"roi_heads\.box_head\.fc(\d+)\.(weight|bias)", rf"{HEAD}.linear.\1.\2"),
    (r"roi_heads\.box_head\.(\d+)\.([01])\.(\w+)", rf"{HEAD}.conv.\1.\2.\3"),
    (r"roi_heads\.box_head\.(\d+)\.(weight|bias)", rf"{HEAD}.linear.\1.\2"),
    (r"roi_heads\.box_predictor\.cls_score\.(weight|bias)", rf"{HEAD}.scores.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(weight|bias)", rf"{HEAD}.deltas.\1"),
)
# A classifier: the names of detkit's backbones are torchvision's.
_BACKBONE: tuple[Rule, ...] = ((r"(.+)", r"\1"),)

LIBRARY = Library(
    _DETECTOR,
    _BACKBONE,
    model={
        "rpn.round_anchors": True,
        "rpn.min_size": 1e-3,
        "rpn.sigmoid": "before_nms",
        "roi_head.aligned": False,
        "roi_head.sampling_ratio": 2,
        "roi_head.min_size": 1e-2,
    },
    data={"resize": "torch"},
    background_first=True,
)
